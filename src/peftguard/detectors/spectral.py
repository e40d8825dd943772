"""Spectra of one layer's attention projections, after WSD (arXiv 2602.15195)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peftguard.adapters.update import place_of
from peftguard.detectors.base import Estimator, Scores, State, array_of, as_labels
from peftguard.detectors.figures import figures, modules_of
from peftguard.errors import SettingsError
from peftguard.features.memory import Memory
from peftguard.features.weights import Weights

FIGURES = ("sigma_1", "frobenius", "energy_concentration", "spectral_entropy", "kurtosis")
_DEPTH = 0.75
"""Index 20 of Llama-3.2-3B's 28 layers, as published, and the like in other models."""
_ATTENTION = re.compile(
    r"(?:^|\.)(?:[qkvo]|w[qkvo]|to_[qkvo]|to_out\.0|[qkvo]_proj|out_proj|[qkv]_lin|out_lin"
    r"|query|key|value|attention\.output\.dense|qkv_proj|query_key_value|c_attn)$"
)


class Spectral(Estimator):
    """Logistic regression on five figures of each attention projection of one layer.

    The figures are the largest singular value, the Frobenius norm, the first value's share of the
    energy, the entropy of the spectrum and the kurtosis of the entries. They are standardised; an
    adapter without one of the modules gets the mean there. As published, but for two things: an
    adapter need not have all four projections, and the scale alpha / r is part of the update. The
    threshold that the authors tune on validation adapters is calibration's business here.

    Args:
        layer: index of the layer; "all" takes every layer; None the one three quarters down, as
            published.
        C: inverse strength of the L2 penalty; classes are balanced.
        memory: keeps figures between fits.
    """

    name: ClassVar[str] = "spectral"

    def __init__(
        self, layer: int | str | None = None, C: float = 0.1, memory: Memory | None = None
    ) -> None:
        self.layer, self.C, self.memory = layer, C, memory

    def fit(self, X: Sequence[Weights], y: ArrayLike) -> Self:
        """Learn from adapters. Arguments and errors as of `Estimator.fit`."""
        from sklearn.linear_model import LogisticRegression

        labels = as_labels(X, y)
        self.modules_ = _chosen(X, self.layer)
        table = self._table(X)
        self.centre_, spread = _standard(table)
        model = LogisticRegression(C=self.C, class_weight="balanced", max_iter=1000)
        model.fit(np.nan_to_num((table - self.centre_) / spread), labels)
        self.weight_ = model.coef_[0] / spread
        self.intercept_ = float(model.intercept_[0])
        return self

    def decision_function(self, X: Sequence[Weights]) -> Scores:
        """(n,) log-odds."""
        scores: Scores = np.nan_to_num(self._table(X) - self.centre_) @ self.weight_
        return scores + self.intercept_

    def state(self) -> State:
        """The mean and weight of each figure, and of which modules they are."""
        tensors = {
            "centre": self.centre_,
            "weight": self.weight_,
            "intercept": np.array([self.intercept_]),
        }
        return State(tensors, {"modules": self.modules_})

    def restore(self, state: State) -> Self:
        """Errors as of `Estimator.restore`."""
        self.modules_ = modules_of(state)
        size = len(self.modules_) * len(FIGURES)
        self.centre_ = array_of(state, "centre", (size,)).astype(np.float64)
        self.weight_ = array_of(state, "weight", (size,)).astype(np.float64)
        self.intercept_ = float(array_of(state, "intercept", (1,))[0])
        return self

    def _table(self, X: Sequence[Weights]) -> NDArray[np.float64]:
        table = figures(X, self.modules_, FIGURES, self.memory)
        return table.reshape(len(X), table.shape[1] * table.shape[2])


def _chosen(X: Sequence[Weights], layer: int | str | None) -> list[str]:
    """Attention projections of the layer that any of the adapters changes, in order."""
    indices: dict[str, int | None] = {}
    for adapter in X:
        for module in adapter.modules:
            place = place_of(module)
            if module not in indices and _ATTENTION.search(place.role):
                indices[module] = place.number
    layers = sorted({index for index in indices.values() if index is not None})
    if layer is None and layers:
        layer = layers[int(_DEPTH * (len(layers) - 1))]
    found = [module for module, index in indices.items() if layer in ("all", index)]
    if not found or layer is None:
        raise SettingsError(
            f"no attention projection of layer {layer!r} among the adapters; found layers {layers}"
        )
    return found


def _standard(table: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of every column, without NaN; 0 and 1 where they say nothing."""
    known = np.isfinite(table)
    counts = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, table, 0.0).sum(axis=0) / counts
    spread = np.sqrt((np.where(known, table - centre, 0.0) ** 2).sum(axis=0) / counts)
    return centre, np.where(spread > 1e-9 * np.abs(centre), spread, 1.0)
