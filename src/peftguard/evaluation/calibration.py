"""From a detector's scores to what can be compared: calibrated on training adapters alone.

Scores that the training adapters get out of fold (from fits that did not see them) serve three
ends: a scale on which detectors and folds can be pooled, a probability (Platt), and the threshold
of the wanted false-positive rate (conformal).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peftguard.detectors.calibration import conformal
from peftguard.errors import SettingsError
from peftguard.features.weights import Weights

Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

FOLDS = 5
"""Of the cross-fit, or as many as the smaller class has adapters."""
_FLAT = 1e6
"""Platt's two parameters are not to be shrunk."""


class Contestant(Protocol):
    """What is measured: a detector, or anything else that scores adapters."""

    def fit(self, X: Sequence[Weights], y: ArrayLike) -> Any:
        """Learn from adapters and their labels."""
        ...

    def decision_function(self, X: Sequence[Weights]) -> Float64:
        """(n,) scores, higher is more suspicious."""
        ...


Make = Callable[[], Contestant]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What out-of-fold scores of the training adapters teach.

    Args:
        benign: (n,) scores of benign training adapters, ascending.
        slope: of the log-odds.
        intercept: of the log-odds.
    """

    benign: Float64
    slope: float
    intercept: float

    def rank(self, scores: Float64) -> Float64:
        """Share of benign training adapters below each score: 1 less its conformal p-value.

        Between two of them it is interpolated and beyond the last it grows by their standard
        deviation, so that no order is lost: a p-value alone ties all that exceed every benign one.
        """
        values, counts = np.unique(self.benign, return_counts=True)
        shares = (np.cumsum(counts) - counts / 2) / len(self.benign)
        scale = float(np.std(self.benign)) or 1.0
        beyond = np.minimum(scores - values[0], 0) + np.maximum(scores - values[-1], 0)
        return np.asarray(np.interp(scores, values, shares) + beyond / scale)

    def p_values(self, scores: Float64) -> Float64:
        """Share of benign training adapters at or above each score, the tested one among them."""
        return conformal(scores, self.benign)

    def flagged(self, scores: Float64, fpr: float) -> Bools:
        """True where the p-value is at most `fpr`, or the least there is if that is larger."""
        return self.p_values(scores) <= max(fpr, 1.0 / (1 + len(self.benign))) + 1e-12

    def probability(self, scores: Float64) -> Float64:
        """Of a backdoor, at the share of backdoors in training."""
        from scipy.special import expit

        return np.asarray(expit(self.slope * scores + self.intercept), dtype=np.float64)


def calibrate(scores: Float64, y: NDArray[np.int64]) -> Calibration:
    """Learn from out-of-fold scores (n,) and labels (n,).

    Platt's sigmoid with his targets, which are not quite 0 and 1: perfect separation stays finite.
    """
    from sklearn.linear_model import LogisticRegression

    middle, scale = float(np.mean(scores)), float(np.std(scores)) or 1.0
    scaled = np.tile((scores - middle) / scale, 2)[:, None]
    positives, n = int(y.sum()), len(y)
    sure = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (n - positives + 2))
    both = np.repeat([1, 0], n)
    model = LogisticRegression(C=_FLAT).fit(
        scaled, both, sample_weight=np.concatenate([sure, 1 - sure])
    )
    slope = float(model.coef_[0, 0]) / scale
    return Calibration(np.sort(scores[y == 0]), slope, float(model.intercept_[0]) - slope * middle)


def out_of_fold(
    make: Make, X: Sequence[Weights], y: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> Float64:
    """(n,) score of each adapter by a fit that saw neither it nor any of its group.

    Raises:
        SettingsError: the adapters cannot be parted.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(FOLDS, *np.bincount(y, minlength=2))
    if folds < 2 or len(set(groups.tolist())) < folds:
        raise SettingsError("too few adapters to calibrate on")
    scores = np.empty(len(X))
    parting = StratifiedGroupKFold(int(folds), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer groups than folds
        parts = list(parting.split(y, y, groups))
    for known, held in parts:
        model = make()
        model.fit([X[i] for i in known], y[known])
        scores[held] = finite(model, [X[i] for i in held])
    return scores


def finite(model: Contestant, X: Sequence[Weights]) -> Float64:
    """Scores (n,) of adapters. Raises ValueError if one is not a number."""
    scores = np.asarray(model.decision_function(X), dtype=np.float64)
    if scores.shape != (len(X),) or not np.isfinite(scores).all():
        raise ValueError(f"expected {len(X)} finite scores, found shape {scores.shape}")
    return scores
