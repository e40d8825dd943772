"""The kernel of `Gram` is the one on the dense updates."""

from __future__ import annotations

import numpy as np
from sklearn.svm import SVC
from tests.toys import MODULES, toy_zoo

from peftguard.detectors.gram import Gram
from peftguard.features.weights import Weights


def directions(adapters: list[Weights]) -> np.ndarray:
    """(n, entries) of all modules, each of length 1, together too."""
    parts = []
    for module in MODULES:
        flat = np.array([(a.modules[module].B @ a.modules[module].A).ravel() for a in adapters])
        parts.append(flat / np.linalg.norm(flat, axis=1, keepdims=True))
    return np.hstack(parts) / np.sqrt(len(MODULES))


def test_as_on_dense_entries() -> None:
    training, fresh = (toy_zoo(14, 10, seed=seed).entries for seed in (0, 1))
    X, strangers = ([entry.weights for entry in side] for side in (training, fresh))
    y = [int(entry.row.label == "backdoored") for entry in training]
    expected = SVC(kernel="linear", C=3.0, class_weight="balanced").fit(directions(X), y)
    found = Gram(C=3.0).fit(X, y)
    for adapters in (X, strangers):
        np.testing.assert_allclose(
            found.decision_function(adapters),
            expected.decision_function(directions(adapters)),
            atol=5e-3,
        )
