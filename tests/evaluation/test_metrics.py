"""Figures against scikit-learn and scipy, and what their intervals promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, bootstrap, mannwhitneyu
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score, roc_curve

from peftguard.evaluation.metrics import Draw, metrics_of, ranked, rate, roc
from peftguard.evaluation.sample import LEAST_POOLS, Sample, joined, merged


def sample_of(scores: np.ndarray, y: np.ndarray, flagged: np.ndarray | None = None) -> Sample:
    scores = np.atleast_2d(scores).astype(float)
    probability = 1 / (1 + np.exp(-scores))
    over = scores > 0 if flagged is None else np.atleast_2d(flagged)
    return Sample(np.arange(len(y)), y, scores, probability, over)


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and labels of both classes."""
    n = draw(st.integers(2, 40))
    y = np.array([0, 1, *(draw(st.integers(0, 1)) for _ in range(n - 2))])
    return np.array([draw(st.integers(-6, 6)) for _ in range(n)]) / 2, y


@settings(max_examples=30, deadline=None)
@given(scored())
def test_figures_are_those_of_scikit_learn(given_: tuple[np.ndarray, np.ndarray]) -> None:
    scores, y = given_
    sample = sample_of(scores, y)
    found = metrics_of(sample)
    false, true, _ = roc_curve(y, scores, drop_intermediate=False)
    p = sample.probability[0]
    assert found.auroc.value == pytest.approx(roc_auc_score(y, scores))
    assert found.tpr_at_1.value == pytest.approx(true[false <= 0.01].max())
    assert found.tpr_at_5.value == pytest.approx(true[false <= 0.05].max())
    assert found.accuracy.value == pytest.approx(accuracy_score(y, scores > 0))
    assert found.brier.value == pytest.approx(brier_score_loss(y, p))
    assert found.cross_entropy.value == pytest.approx(log_loss(y, p))
    assert found.abstention.value is None
    for name in type(found).model_fields:
        figure = getattr(found, name)
        if figure.value is not None:
            assert figure.low <= figure.value <= figure.high


@settings(max_examples=30, deadline=None)
@given(scored(), st.integers(0, 99))
def test_weights_are_repetitions(given_: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    scores, y = given_
    times = np.random.default_rng(seed).integers(1, 4, len(y))
    weighted = ranked(scores, y, times[None].astype(float))[:, 0]
    repeated = ranked(np.repeat(scores, times), np.repeat(y, times), np.ones((1, times.sum())))
    assert weighted == pytest.approx(repeated[:, 0])


@settings(max_examples=30, deadline=None)
@given(scored())
def test_no_increasing_change_of_scores_matters(given_: tuple[np.ndarray, np.ndarray]) -> None:
    scores, y = given_
    one, other = (metrics_of(sample_of(s, y)) for s in (scores, np.expm1(scores) * 3))
    assert (one.auroc, one.tpr_at_5) == (other.auroc, other.tpr_at_5)


def test_the_bootstrap_is_scipys() -> None:
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1], 60)
    scores = rng.normal(size=120) + y
    found = metrics_of(sample_of(scores, y)).auroc

    def auroc(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return mannwhitneyu(a, b, axis=axis).statistic / (60 * 60)

    theirs = bootstrap(
        (scores[60:], scores[:60]), auroc, n_resamples=1000, method="percentile", rng=rng
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(theirs), abs=0.02)


def test_rates_are_clopper_pearson() -> None:
    figure = rate(np.arange(50)[None] < 0)
    assert figure.high == pytest.approx(1 - 0.025 ** (1 / 50))
    assert (figure.value, figure.low, figure.n) == (0, 0, 50)
    assert rate(np.zeros((3, 0), dtype=bool)).value is None


def test_a_perfect_order_has_an_interval_all_the_same() -> None:
    figure = metrics_of(sample_of(np.arange(40.0), np.repeat([0, 1], 20))).auroc
    assert (figure.value, figure.high) == (1, 1)
    assert figure.low == pytest.approx(0.025 ** (1 / 20))


def test_an_adapter_tested_twice_is_one() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 15)
    once = sample_of(rng.normal(size=30) + y, y)
    twice = joined([once, once])
    one, two = metrics_of(once), metrics_of(twice)
    assert two.accuracy == one.accuracy
    assert two.auroc.value == pytest.approx(one.auroc.value)
    assert two.auroc.low == pytest.approx(one.auroc.low)
    weights = Draw(twice).weights
    assert (weights[:, :30] == weights[:, 30:]).all()


def test_seeds_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 30)
    good, bad = rng.normal(size=60) + 3 * y, rng.normal(size=60)
    mixed = metrics_of(sample_of(np.stack([good, bad]), y)).auroc
    single = metrics_of(sample_of(good, y)).auroc
    assert mixed.value == pytest.approx((single.value + roc_auc_score(y, bad)) / 2)
    assert mixed.high - mixed.low > 2 * (single.high - single.low)


def test_duds_count_for_nothing() -> None:
    scores, y = np.array([0.0, 1, 2, 3, 9]), np.array([0, 1, 0, 1, -1])
    sample = sample_of(scores, y)
    assert metrics_of(sample) == metrics_of(sample_of(scores[:4], y[:4]))
    assert roc(sample) == roc(sample_of(scores[:4], y[:4]))


def test_one_class_has_rates_and_no_order() -> None:
    found = metrics_of(sample_of(np.array([-1.0, 1]), np.array([0, 0])))
    assert found.auroc.value is None
    assert (found.fpr.value, found.tpr.value) == (0.5, None)
    assert roc(sample_of(np.array([1.0]), np.array([0]))) == []


def test_equal_scores_have_an_interval_all_the_same() -> None:
    y = np.repeat([0, 1], [30, 20])
    figure = metrics_of(sample_of(np.zeros(50), y)).auroc
    ties = beta.ppf(0.025, 20, 1)  # at least so many pairs tie
    assert figure.value == 0.5
    assert (figure.low, figure.high) == pytest.approx((ties / 2, 1 - ties / 2))


def test_twins_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 40)
    alone = sample_of(np.repeat(rng.normal(size=40), 2) + rng.normal(size=80) / 4 + y / 2, y)
    paired = replace(alone, pairs=np.arange(80) // 2)
    weights = Draw(paired).weights
    assert (weights[:, ::2] == weights[:, 1::2]).all()
    assert (weights.sum(axis=1) == 80).all()
    one, two = metrics_of(alone).auroc, metrics_of(paired).auroc
    assert two.value == one.value
    # What twins share cancels between them.
    assert two.high - two.low < one.high - one.low


def test_adapters_without_a_twin_are_drawn_class_by_class() -> None:
    y = np.array([0, 1, 0, 1, 0, 0, 1])
    sample = replace(sample_of(np.arange(7.0), y), pairs=np.array([0, 0, 1, 1, 2, 3, 4]))
    weights = Draw(sample).weights
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, [4, 5]].sum(axis=1) == 2).all()
    assert (weights[:, 6] == 1).all()


@pytest.mark.parametrize(("pools", "wider"), [(LEAST_POOLS, True), (LEAST_POOLS - 1, False)])
def test_whole_split_groups_are_drawn_where_there_are_enough(pools: int, wider: bool) -> None:
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(pools), 20)
    y = np.tile([0, 1], 10 * pools)
    alone = sample_of(rng.normal(size=pools)[of], y, rng.random(pools)[of] < 0.2)
    pooled = replace(alone, pools=of)
    one, two = metrics_of(alone), metrics_of(pooled)
    assert (two.fpr.value, two.fpr.n) == (one.fpr.value, one.fpr.n)
    assert (two.fpr.high - two.fpr.low > 2 * (one.fpr.high - one.fpr.low)) == wider
    assert (one == two) != wider


def test_merged_samples_are_flagged_by_any_and_uncovered_by_all() -> None:
    y = np.zeros(3, dtype=np.int64)
    one = replace(
        sample_of(np.zeros(3), y, np.array([True, False, False])),
        uncovered=np.array([False, True, True]),
    )
    other = replace(
        sample_of(np.zeros(3), y, np.array([False, True, False])),
        adapters=np.array([2, 1, 0]),
        uncovered=np.array([True, False, True]),
    )
    found = merged([one, other])
    assert found.flagged.tolist() == [[True, True, False]]
    assert found.uncovered is not None
    assert found.uncovered.tolist() == [False, False, True]
    assert merged([one, replace(other, uncovered=None)]).uncovered is None
