"""The kernel of `Outputs` is the one on the dense output covariances, and blind to the inputs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import SVC
from tests.toys import MODULES, WIDTH, toy_zoo

from peftguard.detectors.base import State
from peftguard.detectors.outputs import Outputs
from peftguard.features.weights import Factors, Weights


def zoo(seed: int) -> tuple[list[Weights], list[int]]:
    entries = toy_zoo(14, 10, seed=seed).entries
    labels = [int(entry.row.label == "backdoored") for entry in entries]
    return [entry.weights for entry in entries], labels


def covariances(adapters: list[Weights]) -> np.ndarray:
    """(n, entries) of dW dW^T of all modules, each of length 1, together too."""
    parts = []
    for module in MODULES:
        updates = [a.modules[module].B.astype(float) @ a.modules[module].A for a in adapters]
        flat = np.array([(dW @ dW.T).ravel() for dW in updates])
        parts.append(flat / np.linalg.norm(flat, axis=1, keepdims=True))
    return np.hstack(parts) / np.sqrt(len(MODULES))


def test_as_on_dense_entries() -> None:
    (X, y), (fresh, _) = zoo(0), zoo(1)
    expected = SVC(kernel="linear", C=3.0, class_weight="balanced").fit(covariances(X), y)
    found = Outputs(C=3.0).fit(X, y)
    for adapters in (X, fresh):
        np.testing.assert_allclose(
            found.decision_function(adapters),
            expected.decision_function(covariances(adapters)),
            atol=5e-3,
        )


def test_what_is_read_does_not_matter() -> None:
    X, y = zoo(0)
    machine = Outputs().fit(X, y)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0]
    turned = [
        Weights(
            "turned",
            {m: Factors(f.B, (f.A @ turn).astype(np.float32)) for m, f in x.modules.items()},
        )
        for x in X
    ]
    expected = machine.decision_function(X)
    np.testing.assert_allclose(machine.decision_function(turned), expected, atol=1e-4)


def test_triangles_that_do_not_fit() -> None:
    state = Outputs().fit(*zoo(0)).state()
    assert state.tensors["0.triangle"].shape == (WIDTH * (WIDTH + 1) // 2,)
    for bad in ({"0.triangle": np.ones(4)}, {"1.largest": np.ones(2)}):
        with pytest.raises(ValueError, match=r"0\.triangle|1\.largest"):
            Outputs().restore(State({**state.tensors, **bad}, state.settings))
