"""A kernel machine on where updates write: their output covariances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from peftguard.detectors.base import State, array_of
from peftguard.detectors.kernel import Float64, KernelMachine
from peftguard.detectors.site_weights import sites_as_json, sites_of_state
from peftguard.features.inner_product import Site
from peftguard.features.output_space import output_products, outputs_of
from peftguard.features.weights import Weights


class Outputs(KernelMachine):
    """k(x, z) = mean over modules of cos(dW_x dW_x^T, dW_z dW_z^T), exact, from the factors.

    Of the machine is kept, a module, the symmetric matrix M = sum of coefficient times
    dW dW^T / |dW dW^T|: an update scores tr(M dW dW^T), how much it writes along its directions.
    """

    name: ClassVar[str] = "outputs"
    products = staticmethod(output_products)

    @staticmethod
    def squared_norms(adapters: Sequence[Weights], site: Site) -> Float64:
        """(n,) |dW dW^T|^2; 0 where an adapter has no update."""
        norms = np.zeros(len(adapters))
        for place, adapter in enumerate(adapters):
            factors = site.factors(adapter)
            if factors is not None:
                outputs = outputs_of(factors).astype(np.float64)
                norms[place] = np.sum(np.square(outputs.T @ outputs))
        return norms

    def combine(self, X: Sequence[Weights], coefficients: Float64) -> None:
        """As of `KernelMachine.combine`; rounded as it will be stored."""
        self.weights_ = {
            site: _whole(*_halved(_combined(X, own, site)))
            for site, own in zip(self.sites_, coefficients, strict=True)
        }

    def compared(self, X: Sequence[Weights]) -> Float64:
        """As of `KernelMachine.compared`."""
        pairs = self.weights_.items()
        return np.array([[_written(M, x, site) for x in X] for site, M in pairs])

    def state(self) -> State:
        """The lower triangle of each module's M, as half floats of its largest entry."""
        self._combine()
        tensors: dict[str, NDArray[Any]] = {"intercept": np.array([self.intercept_])}
        for place, M in enumerate(self.weights_.values()):
            triangle, largest = _halved(M)
            tensors |= {f"{place}.triangle": triangle, f"{place}.largest": np.array([largest])}
        return State(tensors, {"sites": sites_as_json(self.weights_)})

    def restore(self, state: State) -> Self:
        """Errors as of `Estimator.restore`."""
        self.weights_ = {}
        for place, site in enumerate(sites_of_state(state)):
            height = site.shape[0]
            shape = (height * (height + 1) // 2,)
            triangle = array_of(state, f"{place}.triangle", shape).astype(np.float16)
            largest = float(array_of(state, f"{place}.largest", (1,))[0])
            self.weights_[site] = _whole(triangle, largest)
        self.sites_ = list(self.weights_)
        self.intercept_ = float(array_of(state, "intercept", (1,))[0])
        self._is_combined = True
        return self


def _combined(X: Sequence[Weights], coefficients: Float64, site: Site) -> Float64:
    """(out, out) sum of coefficient times dW dW^T."""
    pairs = [
        (coefficient, outputs_of(factors).astype(np.float64))
        for coefficient, x in zip(coefficients, X, strict=True)
        if coefficient and (factors := site.factors(x)) is not None
    ]
    if not pairs:
        return np.zeros((site.shape[0],) * 2)
    signed = np.concatenate([coefficient * outputs for coefficient, outputs in pairs], axis=1)
    combined: Float64 = signed @ np.concatenate([outputs for _, outputs in pairs], axis=1).T
    return combined


def _written(M: Float64, adapter: Weights, site: Site) -> float:
    """tr(M dW dW^T) of one adapter; 0 if it has no update there."""
    factors = site.factors(adapter)
    if factors is None:
        return 0.0
    outputs = outputs_of(factors).astype(np.float64)
    return float(np.sum(outputs * (M @ outputs)))


def _halved(M: Float64) -> tuple[NDArray[np.float16], float]:
    """The lower triangle of a symmetric matrix in shares of its largest entry, and that entry."""
    triangle = M[np.tril_indices(len(M))]
    largest = float(np.abs(triangle).max(initial=0.0)) or 1.0
    return (triangle / largest).astype(np.float16), largest


def _whole(triangle: NDArray[np.float16], largest: float) -> Float64:
    """The matrix that was halved, rounded."""
    height = (math.isqrt(8 * len(triangle) + 1) - 1) // 2
    M = np.zeros((height, height))
    M[np.tril_indices(height)] = triangle.astype(np.float64) * largest
    whole: Float64 = M + np.tril(M, -1).T
    return whole
