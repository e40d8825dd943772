"""Conformal p-values: a library's, and the level they promise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from crepes import ConformalClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from peftguard.detectors.calibration import LEAST_OF_ITS_OWN, Calibration, Stratum

BASES, METHODS = ("one/base", "other/base"), ("LORA", "ADALORA")
Draw = Callable[[np.random.Generator, int], np.ndarray]
DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy": lambda rng, n: rng.standard_cauchy(size=n),
    "ties": lambda rng, n: rng.integers(0, 4, size=n).astype(float),
}


def test_p_values_are_those_of_crepes() -> None:
    rng = np.random.default_rng(0)
    n = 1600
    bases, methods = rng.choice(BASES, n), rng.choice(METHODS, n)
    scores = np.round(rng.normal(size=n), 1)
    ours = Calibration.fit(scores, bases.tolist(), methods.tolist())
    assert set(ours.scores) == {Stratum(b, m) for b in BASES for m in (*METHODS, None)}
    bins = np.char.add(bases, methods)
    theirs = ConformalClassifier()
    theirs.fit(scores[:, None], bins)
    fresh = np.round(rng.normal(size=200), 1)
    expected = theirs.predict_p(fresh[:, None], bins=bins[:200], smoothing=False)[:, 0]
    found = ours.p_values(fresh, bases[:200].tolist(), methods[:200].tolist())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(sorted(DISTRIBUTIONS)),
    st.integers(19, 120),
    st.sampled_from([0.01, 0.05, 0.1, 0.3]),
    st.integers(0, 2**32 - 1),
)
def test_fresh_benign_adapters_are_flagged_at_the_nominal_rate(
    name: str, n: int, rate: float, seed: int
) -> None:
    rng, trials = np.random.default_rng(seed), 400
    flagged = 0
    for _ in range(trials):
        drawn = DISTRIBUTIONS[name](rng, n + 1)
        calibration = Calibration.fit(drawn[:n], ["b"] * n, ["LORA"] * n)
        flagged += int(calibration.p_values(drawn[n:], ["b"], ["LORA"])[0] <= rate)
    assert flagged <= binom.ppf(1 - 1e-7, trials, rate)
    if name != "ties":
        reached = np.floor(rate * (n + 1)) / (n + 1)
        assert flagged >= binom.ppf(1e-7, trials, reached)


def test_a_method_is_compared_with_its_own_where_there_are_enough() -> None:
    enough = LEAST_OF_ITS_OWN
    scores = np.concatenate([np.zeros(enough), np.ones(enough - 1)])
    methods = ["LORA"] * enough + ["DORA"] * (enough - 1)
    calibration = Calibration.fit(scores, ["b"] * len(scores), methods)
    assert {stratum.method for stratum in calibration.scores} == {None, "LORA"}
    own, shared, unseen = calibration.p_values([0.5] * 3, ["b"] * 3, ["LORA", "DORA", "VERA"])
    assert own == 1 / (enough + 1)
    assert shared == unseen == enough / (2 * enough)


def test_a_base_without_benign_adapters_has_no_p_value() -> None:
    calibration = Calibration.fit([0.0], ["b"], ["LORA"])
    with pytest.raises(KeyError):
        calibration.p_values([0.0], ["c"], ["LORA"])


@pytest.mark.parametrize(
    "scores",
    [
        {Stratum("b", None): np.array([])},
        {Stratum("b", None): np.array([np.nan])},
        {Stratum("b", None): np.zeros((2, 2))},
        {Stratum("b", "LORA"): np.zeros(2)},
    ],
)
def test_impossible_strata_are_refused(scores: dict[Stratum, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="b"):
        Calibration(scores)
