"""A kernel machine on where updates write: their output covariances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from peftguard.detectors.base import Scores, State, array_of
from peftguard.detectors.kernel import Float64, KernelMachine
from peftguard.detectors.site_weights import sites_as_json, sites_of_state
from peftguard.features.inner_product import Site
from peftguard.features.output_space import output_products, outputs_of
from peftguard.features.weights import Weights


class Spectrum(NamedTuple):
    """The leading part of a symmetric matrix.

    Args:
        vectors: (out, k) float32, eigenvectors.
        values: (k,) float32, their eigenvalues, of either sign.
    """

    vectors: NDArray[np.float32]
    values: NDArray[np.float32]


class Outputs(KernelMachine):
    """k(x, z) = mean over modules of cos(dW_x dW_x^T, dW_z dW_z^T), exact, from the factors.

    Of the machine is kept, a module, the symmetric matrix M = sum of coefficient times
    dW dW^T / |dW dW^T| as its leading eigenvectors and eigenvalues: an update scores
    tr(M dW dW^T), a weighted sum of how much it writes along each of them.
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

    def compress(self, X: Sequence[Weights], dual: Float64, shares: Float64) -> None:
        """As of `KernelMachine.compress`."""
        self.weights_ = {
            site: self._leading(X, dual * share, site)
            for site, share in zip(self.sites_, shares, strict=True)
        }
        self._is_compressed = True

    def compressed_scores(self, X: Sequence[Weights]) -> Scores:
        """As of `KernelMachine.compressed_scores`."""
        scores = self._shares(X)
        for place, (site, weight) in enumerate(self.weights_.items()):
            scores[place] *= [_written(weight, x, site) for x in X]
        total: Scores = scores.sum(axis=0)
        return total

    def state(self) -> State:
        """Eigenvectors and eigenvalues of each module's M, float32."""
        self._compress()
        tensors: dict[str, NDArray[Any]] = {"intercept": np.array([self.intercept_])}
        for place, weight in enumerate(self.weights_.values()):
            tensors |= {f"{place}.{part}": array for part, array in weight._asdict().items()}
        return State(tensors, {"sites": sites_as_json(self.weights_)})

    def restore(self, state: State) -> Self:
        """Errors as of `Estimator.restore`."""
        self.weights_ = {}
        for place, site in enumerate(sites_of_state(state)):
            values = array_of(state, f"{place}.values", (None,)).astype(np.float32)
            shape = site.shape[0], len(values)
            vectors = array_of(state, f"{place}.vectors", shape).astype(np.float32)
            self.weights_[site] = Spectrum(vectors, values)
        self.sites_ = list(self.weights_)
        self.intercept_ = float(array_of(state, "intercept", (1,))[0])
        self._is_compressed = True
        return self

    def _leading(self, X: Sequence[Weights], coefficients: Float64, site: Site) -> Spectrum:
        """M by its eigenvalues of largest size."""
        weighted = [
            (float(coefficient), outputs_of(factors))
            for coefficient, x in zip(coefficients, X, strict=True)
            if coefficient and (factors := site.factors(x)) is not None
        ]
        M = np.zeros((site.shape[0],) * 2)
        for coefficient, outputs in weighted:
            M += coefficient * (outputs.astype(np.float64) @ outputs.T)
        values, vectors = np.linalg.eigh(M)
        kept = np.argsort(-np.abs(values))[: self.max_rank]
        return Spectrum(vectors[:, kept].astype(np.float32), values[kept].astype(np.float32))


def _written(weight: Spectrum, adapter: Weights, site: Site) -> float:
    """tr(M dW dW^T) of one adapter; 0 if it has no update there."""
    factors = site.factors(adapter)
    if factors is None:
        return 0.0
    along = weight.vectors.T @ outputs_of(factors).astype(np.float64)
    return float(weight.values @ np.sum(np.square(along), axis=1))
