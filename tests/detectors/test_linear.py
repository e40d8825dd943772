"""The dual road gives what logistic regression on the dense entries gives."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from peftguard.detectors.linear import Linear
from peftguard.errors import SettingsError
from peftguard.features.memory import Memory
from peftguard.features.weights import Factors, Weights

SHAPES = {"layers.0.q": (8, 6), "layers.0.v": (5, 6)}


def zoo(seed: int, count: int = 24) -> tuple[list[Weights], np.ndarray]:
    """Ranks 1 to 3; every other adapter has a backdoor, one common direction, in q."""
    rng, labels = np.random.default_rng(seed), np.arange(count) % 2
    direction = np.random.default_rng(9).normal(size=(8, 1)), np.ones((1, 6))
    adapters = []
    for number, label in enumerate(labels):
        modules = {}
        for module, (out, into) in SHAPES.items():
            B, A = rng.normal(size=(out, number % 3 + 1)), rng.normal(size=(number % 3 + 1, into))
            if label and module == "layers.0.q":
                B, A = np.hstack([B, direction[0]]), np.vstack([A, direction[1]])
            modules[module] = Factors(B.astype(np.float32), A.astype(np.float32))
        adapters.append(Weights(f"a{number}", modules))
    return adapters, labels


def dense(adapters: list[Weights], module: str) -> np.ndarray:
    return np.array([(a.modules[module].B @ a.modules[module].A).ravel() for a in adapters])


def standardised(adapters: list[Weights], training: list[Weights]) -> np.ndarray:
    """Every module centred, and scaled to mean squared norm 1 / modules."""
    parts = []
    for module in SHAPES:
        centre = dense(training, module).mean(axis=0)
        size = np.mean(np.sum((dense(training, module) - centre) ** 2, axis=1))
        parts.append((dense(adapters, module) - centre) / np.sqrt(size * len(SHAPES)))
    return np.hstack(parts)


def test_as_on_dense_entries() -> None:
    X, y = zoo(0)
    fresh, _ = zoo(1)
    expected = LogisticRegression(C=3.0, class_weight="balanced", max_iter=1000, tol=1e-8)
    expected.fit(standardised(X, X), y)
    found = Linear(C=3.0, max_rank=None).fit(X, y)
    for adapters in (X, fresh):
        np.testing.assert_allclose(
            found.decision_function(adapters),
            expected.decision_function(standardised(adapters, X)),
            atol=2e-3,
        )


def test_finds_a_common_direction() -> None:
    X, y = zoo(0, 60)
    fresh, labels = zoo(1, 60)
    model = Linear(C=10.0, max_rank=2).fit(X, y)
    assert (model.predict(fresh) == labels).mean() > 0.8
    assert all(len(weight.A) <= 2 for weight in model.weights_.values())


def test_truncation_keeps_scores_centred() -> None:
    X, y = zoo(0)
    whole, cut = (Linear(max_rank=rank).fit(X, y).decision_function(X) for rank in (None, 1))
    assert cut.mean() == pytest.approx(whole.mean(), abs=1e-4)
    assert not np.allclose(cut, whole, atol=1e-3)


def test_memory_changes_nothing() -> None:
    X, y = zoo(0)
    memory = Memory()
    memory.expect(X)
    remembered = Linear(memory=memory).fit(X, y).decision_function(X)
    np.testing.assert_allclose(remembered, Linear().fit(X, y).decision_function(X), atol=1e-4)


def test_modules_that_some_lack_and_modules_that_are_new() -> None:
    X, y = zoo(0)
    X[3] = Weights("q only", {"layers.0.q": X[3].modules["layers.0.q"]})
    X[4] = Weights("nothing", {})
    model = Linear().fit(X, y)
    foreign = Weights("other base", {"layers.0.q": Factors(np.ones((3, 1)), np.ones((1, 3)))})
    scores = model.decision_function([X[4], foreign])
    assert scores.tolist() == [model.intercept_] * 2
    assert np.isfinite(model.decision_function(X)).all()


def test_adapters_that_do_not_differ() -> None:
    X, _ = zoo(0, 1)
    with pytest.raises(SettingsError, match="differ"):
        Linear().fit(X * 4, [0, 1, 0, 1])
