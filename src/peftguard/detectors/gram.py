"""A kernel machine on the directions of the updates themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from peftguard.detectors.base import Scores, State
from peftguard.detectors.kernel import Float64, KernelMachine
from peftguard.detectors.site_weights import restored, stored
from peftguard.features.inner_product import inner_products, squared_norms
from peftguard.features.primal import combine, response
from peftguard.features.weights import Weights


class Gram(KernelMachine):
    """k(x, z) = mean over modules of cos(dW_x, dW_z), exact, from the factors.

    What is kept of the machine is a low-rank weight a module, compared with an update as updates
    are with one another.
    """

    name: ClassVar[str] = "gram"
    products = staticmethod(inner_products)
    squared_norms = staticmethod(squared_norms)

    def compress(self, X: Sequence[Weights], dual: Float64, shares: Float64) -> None:
        """As of `KernelMachine.compress`."""
        self.weights_ = {
            site: combine(X, dual * share, site, self.max_rank).weight
            for site, share in zip(self.sites_, shares, strict=True)
        }
        self._is_compressed = True

    def compressed_scores(self, X: Sequence[Weights]) -> Scores:
        """As of `KernelMachine.compressed_scores`."""
        scores = self._shares(X)
        for place, (site, weight) in enumerate(self.weights_.items()):
            scores[place] *= [response(weight, x, site) for x in X]
        total: Scores = scores.sum(axis=0)
        return total

    def state(self) -> State:
        """Factors of each module's weight, float32."""
        self._compress()
        return stored(self.weights_, self.intercept_)

    def restore(self, state: State) -> Self:
        """Errors as of `Estimator.restore`."""
        self.weights_, self.intercept_ = restored(state)
        self.sites_ = list(self.weights_)
        self._is_compressed = True
        return self
