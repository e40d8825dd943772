"""Figures with 95 % intervals: how well scores tell backdoors from benign adapters.

A value is the mean over seeds. Intervals of AUROC, Brier score and cross-entropy are percentiles of
a bootstrap that draws test adapters, class by class, and seeds; twins are drawn together, and whole
split groups where there are enough of them. Rates have the hull of that and Clopper-Pearson's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftguard.evaluation.results import Figure, Metrics
from peftguard.evaluation.sample import Sample

Float64 = NDArray[np.float64]

DRAWS = 1000
_LEVEL = 0.95
_CERTAIN = 1e-6
"""Least probability of a class: a cross-entropy stays finite."""


def metrics_of(sample: Sample) -> Metrics:
    """All figures of a sample; those that need a class it lacks are None. Duds are left out."""
    sample = sample.judged
    y, flagged = sample.y, sample.flagged
    draw, all_of = Draw(sample), np.ones(len(y), dtype=bool)
    abstention = Figure()
    if sample.uncovered is not None:
        abstention = draw.rate(np.broadcast_to(sample.uncovered, flagged.shape), all_of)
    ranked = draw.ranked(sample.scores) if 0 < int(y.sum()) < len(y) else None
    return Metrics(
        auroc=Figure() if ranked is None else _auroc(ranked[0], draw),
        tpr_at_1=Figure() if ranked is None else _tpr(ranked[1], draw),
        tpr_at_5=Figure() if ranked is None else _tpr(ranked[2], draw),
        fpr=draw.rate(flagged, y == 0),
        tpr=draw.rate(flagged, y == 1),
        accuracy=draw.rate(flagged == (y == 1), all_of),
        brier=draw.mean(_brier(sample)),
        cross_entropy=draw.mean(_cross_entropy(sample)),
        abstention=abstention,
    )


def rate(happened: NDArray[np.bool_], adapters: NDArray[np.int64] | None = None) -> Figure:
    """Share of (S, n) events: mean over seeds, Clopper-Pearson on the mean count.

    An adapter that is tested twice (`adapters`, (n,), says which it is) is one trial all the same.
    """
    from scipy.stats import binomtest

    n = happened.shape[1] if adapters is None else len(np.unique(adapters))
    if n == 0:
        return Figure()
    value = float(happened.mean())
    bounds = binomtest(round(value * n), n).proportion_ci(_LEVEL, method="exact")
    low, high = min(float(bounds.low), value), max(float(bounds.high), value)
    return Figure(value=value, low=low, high=high, n=n)


class Draw:
    """Bootstrap draws of one sample's adapters and seeds, the same for every figure."""

    def __init__(self, sample: Sample, draws: int = DRAWS) -> None:
        rng = np.random.default_rng(0)
        self.y, self.adapters = sample.y, sample.adapters
        drawn, self.n_pairs = _weights(sample, rng, draws)
        self.weights = np.vstack([np.ones(len(sample.y)), drawn])
        seeds = len(sample.scores)
        self.seeds = np.vstack(
            [np.full(seeds, 1 / seeds), rng.multinomial(seeds, [1 / seeds] * seeds, draws) / seeds]
        )

    def ranked(self, scores: Float64) -> tuple[Float64, Float64, Float64]:
        """AUROC, and true-positive rate at 1 and 5 % false positives, of (S, n) scores.

        Each is (1 + draws,): first of the sample itself, then of every draw.
        """
        figures = np.stack([ranked(one, self.y, self.weights) for one in scores])
        auroc, at_1, at_5 = np.einsum("sfd,ds->fd", figures, self.seeds)
        return auroc, at_1, at_5

    def mean(self, values: Float64) -> Figure:
        """Mean of (S, n) values."""
        n = values.shape[1]
        return figure(self._means(values, self.weights), n) if n else Figure()

    def rate(self, happened: NDArray[np.bool_], mask: NDArray[np.bool_]) -> Figure:
        """Share of (S, n) events among the adapters of a mask (n,), one class or all of them."""
        exact = rate(happened[:, mask], self.adapters[mask])
        if exact.value is None:
            return exact
        drawn = figure(self._means(happened[:, mask], self.weights[:, mask]), exact.n)
        return _hull(exact, drawn)

    def _means(self, values: NDArray[Any], weights: Float64) -> Float64:
        """(1 + draws,) means of (S, n) values with (1 + draws, n) weights."""
        by_seed = (values @ weights.T) / weights.sum(axis=1)
        return np.asarray(np.einsum("sd,ds->d", by_seed, self.seeds))


def ranked(scores: Float64, y: NDArray[np.int64], weights: Float64) -> Float64:
    """(3, draws) AUROC and true-positive rates at 1 and 5 % of (n,) scores, weighted (draws, n).

    The threshold is a test score, the lowest that at most so many benign adapters reach.
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    drawn = weights[:, order]
    positive = np.add.reduceat(drawn * (y[order] == 1), starts, axis=1)
    negative = np.add.reduceat(drawn * (y[order] == 0), starts, axis=1)
    tpr = positive.cumsum(axis=1) / positive.sum(axis=1, keepdims=True)
    fpr = negative.cumsum(axis=1) / negative.sum(axis=1, keepdims=True)
    share = negative / negative.sum(axis=1, keepdims=True)
    before = tpr - positive / positive.sum(axis=1, keepdims=True)
    auroc = (share * (tpr + before) / 2).sum(axis=1)
    at = [np.where(fpr <= most + 1e-12, tpr, 0.0).max(axis=1) for most in (0.01, 0.05)]
    return np.stack([auroc, *at])


def figure(values: Float64, n: int) -> Figure:
    """The first of the values, with the percentile interval of the others."""
    tail = 100 * (1 - _LEVEL) / 2
    low, high = np.percentile(values[1:], [tail, 100 - tail])
    value = float(values[0])
    return Figure(value=value, low=min(float(low), value), high=max(float(high), value), n=n)


def roc(sample: Sample) -> list[tuple[float, float]]:
    """(false, true) positive rates of the mean score over seeds; empty if a class is missing."""
    from sklearn.metrics import roc_curve

    sample = sample.judged
    if not 0 < int(sample.y.sum()) < len(sample.y):
        return []
    false, true, _ = roc_curve(sample.y, sample.scores.mean(axis=0))
    return [(round(float(x), 5), round(float(y), 5)) for x, y in zip(false, true, strict=True)]


def _auroc(values: Float64, draw: Draw) -> Figure:
    found = figure(values, len(draw.y))
    if found.low != found.high or found.value is None:
        return found
    # All pairs in order, or all tied: so they are in every draw. Pairs of one benign and one
    # backdoored adapter that share none are independent trials, all of which went alike. Others may
    # be as rare as they can be, given that, and go either way.
    alike = rate(np.ones((1, draw.n_pairs), dtype=bool)).low or 0.0
    low, high = found.value * alike, 1 - (1 - found.value) * alike
    return found.model_copy(update={"low": low, "high": high})


def _tpr(values: Float64, draw: Draw) -> Figure:
    adapters = draw.adapters[draw.y == 1]
    found = figure(values, len(np.unique(adapters)))
    caught = np.arange(len(adapters))[None] < round((found.value or 0.0) * len(adapters))
    return _hull(found, rate(caught, adapters))


def _hull(found: Figure, other: Figure) -> Figure:
    """The first, with an interval that holds both."""
    ends = [end for one in (found, other) for end in (one.low, one.high) if end is not None]
    return found.model_copy(update={"low": min(ends), "high": max(ends)})


def _weights(sample: Sample, rng: np.random.Generator, draws: int) -> tuple[Float64, int]:
    """(draws, n) how often each was drawn, and how many pairs of both classes share no cluster.

    Clusters of benign adapters, of backdoored ones and of both are drawn apart, so that no draw
    lacks a class.
    """
    clusters, places = np.unique(sample.clusters, return_inverse=True)
    classes = np.zeros(len(clusters), dtype=np.int64)
    np.bitwise_or.at(classes, places, sample.y + 1)
    weights = np.zeros((draws, len(clusters)))
    for held in np.unique(classes):
        mine = np.flatnonzero(classes == held)
        weights[:, mine] = rng.multinomial(len(mine), [1 / len(mine)] * len(mine), draws)
    benign, backdoored, both = (int((classes == held).sum()) for held in (1, 2, 3))
    return weights[:, places], both + min(benign, backdoored)


def _brier(sample: Sample) -> Float64:
    return np.asarray((sample.probability - sample.y) ** 2)


def _cross_entropy(sample: Sample) -> Float64:
    p = np.clip(np.where(sample.y == 1, sample.probability, 1 - sample.probability), _CERTAIN, 1)
    return np.asarray(-np.log(p))
