"""Benign adapters alone say what is ordinary; too much and too little both stand out."""

from __future__ import annotations

import numpy as np
import pytest

from peftguard.detectors.anomaly import Anomaly
from peftguard.errors import SettingsError
from peftguard.features.weights import Factors, Weights

MODULES = [f"layers.{layer}.{role}" for layer in range(2) for role in "qv"]


def adapter(seed: int, size: float = 1.0, spike: float = 1.0, *, rank: int = 4) -> Weights:
    rng = np.random.default_rng(seed)
    modules = {}
    for module in MODULES:
        B = rng.normal(size=(12, rank)) * size * np.exp(0.1 * rng.normal())
        B[:, :1] *= spike
        A = rng.normal(size=(rank, 10))
        modules[module] = Factors(B.astype(np.float32), A.astype(np.float32))
    return Weights(str(seed), modules)


@pytest.fixture(scope="module")
def benign() -> list[Weights]:
    return [adapter(seed) for seed in range(60)]


@pytest.mark.parametrize("strange", [{"size": 3.0}, {"size": 0.3}, {"spike": 8.0}])
def test_both_directions(benign: list[Weights], strange: dict[str, float]) -> None:
    model = Anomaly().fit(benign)
    fresh = model.decision_function([adapter(seed) for seed in range(100, 120)])
    scores = model.decision_function([adapter(seed, **strange) for seed in range(200, 220)])
    assert scores.min() > np.median(fresh)
    assert (scores > 0).all()


def test_one_module_apart(benign: list[Weights]) -> None:
    odd = adapter(300)
    factors = odd.modules[MODULES[1]]
    odd = Weights("odd", {**odd.modules, MODULES[1]: Factors(5 * factors.B, factors.A)})
    assert Anomaly().fit(benign).predict([odd]).tolist() == [1]


def test_backdoored_adapters_are_not_looked_at(benign: list[Weights]) -> None:
    bad = [adapter(seed, 50.0) for seed in range(400, 410)]
    alone = Anomaly().fit(benign).decision_function(bad)
    labels = [0] * len(benign) + [1] * len(bad)
    np.testing.assert_array_equal(Anomaly().fit(benign + bad, labels).decision_function(bad), alone)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_share_of_training_adapters_above_zero(benign: list[Weights], share: float) -> None:
    scores = Anomaly(share=share).fit(benign).decision_function(benign)
    assert np.mean(scores > 1e-9) == pytest.approx(share, abs=1 / len(benign))


def test_other_factors_score_the_same(benign: list[Weights]) -> None:
    model, rng = Anomaly().fit(benign), np.random.default_rng(3)
    turned = {}
    for module, factors in benign[0].modules.items():
        mix = rng.normal(size=(len(factors.A),) * 2)
        B, A = factors.B @ np.linalg.inv(mix), mix @ factors.A
        turned[module] = Factors(B.astype(np.float32), A.astype(np.float32))
    found = model.decision_function([Weights("turned", turned)])
    np.testing.assert_allclose(found, model.decision_function(benign[:1]), atol=1e-3)


def test_figures_without_variance() -> None:
    X = [adapter(seed, rank=1) for seed in range(8)]  # stable and effective rank are always 1
    assert np.isfinite(Anomaly().fit(X).decision_function(X)).all()


def test_missing_and_zero_updates_count_as_typical(benign: list[Weights]) -> None:
    zero = Factors(np.zeros((12, 4)), np.ones((4, 10)))
    X = [*benign, Weights("zero", dict.fromkeys(MODULES, zero)), Weights("none", {})]
    scores = Anomaly().fit(X).decision_function(X)
    assert scores[-2:].tolist() == [scores.min()] * 2


@pytest.mark.parametrize("count", [0, 4])
def test_too_few_benign_adapters(benign: list[Weights], count: int) -> None:
    labels = [0] * count + [1] * (len(benign) - count)
    with pytest.raises(SettingsError, match=f"needs 5 benign .* among {count} benign"):
        Anomaly().fit(benign, labels)
