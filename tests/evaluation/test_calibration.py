"""Calibration keeps order, holds its level, and gives probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, rankdata
from sklearn.metrics import brier_score_loss

from peftguard.errors import SettingsError
from peftguard.evaluation.calibration import Calibration, calibrate, out_of_fold
from peftguard.features.weights import Weights

REALS = st.floats(-1e3, 1e3).map(lambda value: round(value, 2))


@settings(max_examples=60)
@given(st.lists(REALS, min_size=1, max_size=30), st.lists(REALS, min_size=1, max_size=30))
def test_order_is_kept_and_follows_the_p_value(known: list[float], new: list[float]) -> None:
    calibration = Calibration(np.sort(np.array(known)), 1.0, 0.0)
    scores = np.array(new)
    places = calibration.rank(scores)
    order = np.argsort(scores, kind="stable")
    assert (np.diff(places[order]) >= 0).all()
    assert rankdata(places).tolist() == pytest.approx(rankdata(scores).tolist())
    p = calibration.p_values(scores)
    assert ((p > 0) & (p <= 1)).all()
    for value, found in zip(scores, p, strict=True):
        assert found == (1 + sum(one >= value for one in known)) / (1 + len(known))


def test_fresh_benign_adapters_are_flagged_at_the_level() -> None:
    rng = np.random.default_rng(0)
    flags = [
        Calibration(np.sort(rng.normal(size=199)), 1.0, 0.0).flagged(rng.normal(size=1), 0.05)[0]
        for _ in range(2000)
    ]
    assert binomtest(int(sum(flags)), 2000, 0.05).pvalue > 0.01


def test_too_few_benign_adapters_still_flag_what_exceeds_all() -> None:
    calibration = Calibration(np.arange(10.0), 1.0, 0.0)
    assert calibration.flagged(np.array([8.5, 9.5]), 0.01).tolist() == [False, True]


def test_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(4000) < 0.3).astype(np.int64)
    scores = 40 * rng.normal(size=4000) + 80 * y + 500
    p = calibrate(scores, y).probability(scores)
    assert p.mean() == pytest.approx(0.3, abs=0.01)
    assert brier_score_loss(y, p) < 0.12
    near = p[(p > 0.4) & (p < 0.6)].mean()
    assert y[(p > 0.4) & (p < 0.6)].mean() == pytest.approx(near, abs=0.08)


def test_perfect_and_constant_scores_stay_finite() -> None:
    y = np.repeat([0, 1], 10)
    sure = calibrate(y.astype(float), y)
    assert sure.probability(np.array([0.0, 1.0])) == pytest.approx([1 / 12, 11 / 12], abs=1e-3)
    flat = calibrate(np.zeros(20), y)
    assert flat.probability(np.zeros(1)) == pytest.approx([0.5], abs=1e-3)
    assert np.isfinite(flat.rank(np.array([-5.0, 0.0, 5.0]))).all()


class Remembers:
    """Knows what it was trained on, and nothing else."""

    def fit(self, X: list[Weights], y: np.ndarray) -> None:
        self.known = {weights.name for weights in X}

    def decision_function(self, X: list[Weights]) -> np.ndarray:
        return np.array([float(weights.name in self.known) for weights in X])


@given(st.integers(0, 5))
def test_no_adapter_is_scored_by_a_fit_that_saw_its_group(seed: int) -> None:
    X = [Weights(str(number // 2), {}) for number in range(20)]
    y = np.tile([0, 1], 10)
    groups = np.arange(20) // 2
    assert not out_of_fold(Remembers, X, y, groups, seed).any()


def test_one_group_cannot_be_parted() -> None:
    X = [Weights("one", {})] * 10
    with pytest.raises(SettingsError, match="too few"):
        out_of_fold(Remembers, X, np.tile([0, 1], 5), np.zeros(10, dtype=np.int64), 0)
