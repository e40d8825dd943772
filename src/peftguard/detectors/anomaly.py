"""How far an adapter's spectra lie from those of benign adapters, in either direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peftguard.detectors.base import Estimator, Scores, State, array_of, as_labels
from peftguard.detectors.figures import figures, modules_of
from peftguard.errors import SettingsError
from peftguard.features.memory import Memory
from peftguard.features.weights import Weights

Float64 = NDArray[np.float64]

FIGURES = ("frobenius", "stable_rank", "effective_rank", "kurtosis")
_FEWEST = 5  # benign adapters that a median and a deviation can be taken of
_LEAST_SPREAD = 0.05  # of a logarithm: figures within some 5 % of each other do not differ
_LEAST_VARIANCE = 0.01  # of scaled figures, in any direction: none weighs without bound
_FARTHEST = 5.0  # standard deviations that one training adapter may add to the covariance


class Anomaly(Estimator):
    """Mahalanobis distance of the figures of every module, learnt from benign adapters alone.

    Figures are the logarithms of a module's Frobenius norm, stable rank, effective rank (the
    exponential of the spectral entropy) and kurtosis, and of its share of the adapter's energy.
    Each is centred and scaled by median and median absolute deviation for that very module, so that
    layers and roles are never mixed; their covariance is estimated with shrinkage (Ledoit and
    Wolf), since there may be more figures than adapters. A figure that an adapter lacks counts as
    typical.

    Args:
        share: of the benign training adapters that lie beyond a score of 0.
        memory: keeps figures between fits.
    """

    name: ClassVar[str] = "anomaly"
    needs_labels: ClassVar[bool] = False

    def __init__(self, share: float = 0.05, memory: Memory | None = None) -> None:
        self.share, self.memory = share, memory

    def fit(self, X: Sequence[Weights], y: ArrayLike | None = None) -> Self:
        """Learn what is ordinary.

        Args:
            X: n adapters.
            y: (n,) those labelled 1 are left out; None takes all for benign.

        Raises:
            SettingsError: fewer than 5 benign adapters, or no module that 5 of them change.
        """
        labels = as_labels(X, np.zeros(len(X)) if y is None else y, both=False)
        benign = [adapter for adapter, label in zip(X, labels, strict=True) if label == 0]
        self.modules_ = _common(benign)
        table = self._table(benign)
        self.centre_, self.spread_ = _typical(table)
        self.whitening_ = _whitening(np.nan_to_num((table - self.centre_) / self.spread_))
        self.threshold_ = float(np.quantile(self._distances(table), 1 - self.share))
        return self

    def decision_function(self, X: Sequence[Weights]) -> Scores:
        """(n,) root mean squared distances, less the one that `share` of the benign exceed."""
        return self._distances(self._table(X)) - self.threshold_

    def state(self) -> State:
        """Centre, spread and inverse covariance of the figures, and of which modules they are."""
        tensors: dict[str, NDArray[Any]] = {
            "centre": self.centre_,
            "spread": self.spread_,
            "whitening": self.whitening_.astype(np.float32),
            "threshold": np.array([self.threshold_]),
        }
        return State(tensors, {"modules": self.modules_})

    def restore(self, state: State) -> Self:
        """Errors as of `Estimator.restore`."""
        self.modules_ = modules_of(state)
        size = self._size
        self.centre_ = array_of(state, "centre", (size,)).astype(np.float64)
        self.spread_ = array_of(state, "spread", (size,)).astype(np.float64)
        if (self.spread_ <= 0).any():
            raise ValueError("spread: expected positive numbers")
        self.whitening_ = array_of(state, "whitening", (size, size)).astype(np.float64)
        self.threshold_ = float(array_of(state, "threshold", (1,))[0])
        return self

    @property
    def _size(self) -> int:
        return len(self.modules_) * (len(FIGURES) + 1)

    def _table(self, X: Sequence[Weights]) -> Float64:
        """(n, modules * 5) logarithms, NaN where there is nothing to take one of."""
        positive = figures(X, self.modules_, FIGURES, self.memory)
        positive[~(positive > 0)] = np.nan
        logs = np.log(positive)
        energies = positive[:, :, :1] ** 2
        total = np.nansum(energies, axis=1, keepdims=True)
        shares = 2 * logs[:, :, :1] - np.log(np.where(total > 0, total, 1.0))
        return np.concatenate([logs, shares], axis=2).reshape(len(X), self._size)

    def _distances(self, table: Float64) -> Scores:
        turned = np.nan_to_num((table - self.centre_) / self.spread_) @ self.whitening_
        distances: Scores = np.sqrt(np.mean(turned**2, axis=1))
        return distances


def _common(benign: Sequence[Weights]) -> list[str]:
    """Modules that enough adapters change, in order of appearance."""
    counts: dict[str, int] = {}
    for adapter in benign:
        for module, factors in adapter.modules.items():
            counts[module] = counts.get(module, 0) + bool(factors.B.any() and factors.A.any())
    common = [module for module, count in counts.items() if count >= _FEWEST]
    if not common:
        raise SettingsError(
            f"training needs {_FEWEST} benign adapters that change the same module; "
            f"found {max(counts.values(), default=0)} among {len(benign)} benign adapters"
        )
    return common


def _typical(table: Float64) -> tuple[Float64, Float64]:
    """Median, and median absolute deviation in units of a Gaussian's standard deviation."""
    known = ~np.isnan(table).all(axis=0)
    centre, spread = np.zeros(table.shape[1]), np.full(table.shape[1], _LEAST_SPREAD)
    centre[known] = np.nanmedian(table[:, known], axis=0)
    deviation = 1.4826 * np.nanmedian(np.abs(table - centre)[:, known], axis=0)
    spread[known] = np.maximum(deviation, _LEAST_SPREAD)
    return centre, spread


def _whitening(scaled: Float64) -> Float64:
    """(d, d) W with W W^T the inverse covariance; what lies far out counts as less far."""
    from sklearn.covariance import LedoitWolf

    model = LedoitWolf(assume_centered=True).fit(np.clip(scaled, -_FARTHEST, _FARTHEST))
    covariance = model.covariance_ + _LEAST_VARIANCE * np.eye(scaled.shape[1])
    return np.linalg.cholesky(np.linalg.inv(covariance))
