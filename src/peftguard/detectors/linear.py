"""A linear classifier on the entries of the updates, after Huster et al. (arXiv 2411.03445)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peftguard.detectors.base import Estimator, Scores, State, as_labels
from peftguard.detectors.site_weights import responses, restored, stored
from peftguard.errors import SettingsError
from peftguard.features.inner_product import Site, inner_products, sites_of
from peftguard.features.memory import Memory
from peftguard.features.primal import combine
from peftguard.features.weights import Weights

Float64 = NDArray[np.float64]

_SMALLEST = 1e-6  # inner products carry errors of this size: directions below it are noise


class Linear(Estimator):
    """Logistic regression on vec(dW) of all modules, solved in the dual.

    Of the published steps, subtracting a reference model is what an update is, and models need no
    alignment where adapters share their base. Entries are centred, but scaled by one figure a
    module, the root mean square of its centred updates over the training adapters: a figure an
    entry would need the dense updates. For the same reason no entries are selected: all modules
    that a training adapter changes take part, each with the same share of the variance.

    The solution is a combination of the training updates, kept as one weight a module.

    Args:
        C: inverse strength of the L2 penalty, where the mean squared norm of an adapter is 1;
            weak by default, as most adapters are far smaller than the largest. Classes are
            balanced.
        max_rank: directions kept of each module's weight; None keeps all.
        memory: keeps inner products between fits.
    """

    name: ClassVar[str] = "linear"

    def __init__(
        self, C: float = 100.0, max_rank: int | None = 48, memory: Memory | None = None
    ) -> None:
        self.C, self.max_rank, self.memory = C, max_rank, memory

    def fit(self, X: Sequence[Weights], y: ArrayLike) -> Self:
        """Learn one weight a module. Arguments and errors as of `Estimator.fit`."""
        labels = as_labels(X, y)
        kernel, scales = _kernel(X, self.memory or Memory())
        dual, intercept = _solved(kernel, labels, self.C)
        combined = {
            site: combine(X, dual * scale, site, self.max_rank) for site, scale in scales.items()
        }
        self.weights_ = {site: combination.weight for site, combination in combined.items()}
        self.lost_ = {site: combination.lost for site, combination in combined.items()}
        self.intercept_ = intercept - float(responses(self.weights_, X).mean())
        return self

    def decision_function(self, X: Sequence[Weights]) -> Scores:
        """(n,) log-odds; adapters without any known module get the intercept."""
        return responses(self.weights_, X) + self.intercept_

    def state(self) -> State:
        """Factors of each module's weight, float32."""
        return stored(self.weights_, self.intercept_)

    def restore(self, state: State) -> Self:
        """Errors as of `Estimator.restore`."""
        self.weights_, self.intercept_ = restored(state)
        return self


def _kernel(X: Sequence[Weights], memory: Memory) -> tuple[Float64, dict[Site, float]]:
    """(n, n) inner products of standardised adapters; by place, what multiplies those there."""
    parts: dict[Site, Float64] = {}
    for site in sites_of(X):
        products = memory.products(inner_products, X, X, site)
        across = products.mean(axis=0)
        centred = products - across - across[:, None] + across.mean()
        # Identical updates leave rounding errors, which standardising would blow up.
        if np.trace(centred) > _SMALLEST * np.trace(products):
            parts[site] = centred
    if not parts:
        raise SettingsError("training needs updates that differ; found none")
    scales = {site: len(X) / (len(parts) * float(np.trace(part))) for site, part in parts.items()}
    kernel = sum((scales[site] * part for site, part in parts.items()), np.zeros((len(X),) * 2))
    return kernel, scales


def _solved(kernel: Float64, labels: NDArray[np.int64], C: float) -> tuple[Float64, float]:
    """(n,) coefficients of the centred adapters, and the intercept."""
    from sklearn.linear_model import LogisticRegression

    values, vectors = np.linalg.eigh(kernel)
    kept = values > _SMALLEST * values[-1]
    root, vectors = np.sqrt(values[kept]), vectors[:, kept]
    # Coordinates with the same inner products: what is optimal for them is so for the updates.
    model = LogisticRegression(C=C, class_weight="balanced", max_iter=10_000)
    model.fit(vectors * root, labels)
    return vectors @ (model.coef_[0] / root), float(model.intercept_[0])
