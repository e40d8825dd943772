"""A kernel machine on the directions of the updates themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np

from peftguard.detectors.base import State
from peftguard.detectors.kernel import Float64, KernelMachine
from peftguard.detectors.site_weights import restored, stored
from peftguard.features.inner_product import inner_products, squared_norms
from peftguard.features.primal import combine, response
from peftguard.features.weights import Weights


class Gram(KernelMachine):
    """k(x, z) = mean over modules of cos(dW_x, dW_z), exact, from the factors.

    What is kept of the machine is one weight a module, as factors, compared with an update as
    updates are with one another.
    """

    name: ClassVar[str] = "gram"
    products = staticmethod(inner_products)
    squared_norms = staticmethod(squared_norms)

    def combine(self, X: Sequence[Weights], coefficients: Float64) -> None:
        """As of `KernelMachine.combine`."""
        self.weights_ = {
            site: combine(X, own, site).weight
            for site, own in zip(self.sites_, coefficients, strict=True)
        }

    def compared(self, X: Sequence[Weights]) -> Float64:
        """As of `KernelMachine.compared`."""
        pairs = self.weights_.items()
        return np.array([[response(weight, x, site) for x in X] for site, weight in pairs])

    def state(self) -> State:
        """Factors of each module's weight, float32."""
        self._combine()
        return stored(self.weights_, self.intercept_)

    def restore(self, state: State) -> Self:
        """Errors as of `Estimator.restore`."""
        self.weights_, self.intercept_ = restored(state)
        self.sites_ = list(self.weights_)
        self._is_combined = True
        return self
