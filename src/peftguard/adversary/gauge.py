"""A -> M A, B -> B M^-1: other numbers in the file, the same update."""

from __future__ import annotations

import numpy as np

from peftguard.adversary.arithmetic import Float64, changed, with_factors
from peftguard.adversary.evasion import Evasion, Means, Parts
from peftguard.mitigation.factored import Factored, Layer


class Gauge(Evasion):
    """M is random, with the condition number asked for."""

    name = "gauge"
    about = "A -> M A, B -> B M^-1 with a random M in every layer"
    strength = "decades between M's largest and least singular value"
    strengths = (0.0, 1.0, 2.0)
    exact = True

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""

        def turned(layer: Layer) -> Layer:
            left, right = (orthogonal(layer.rank, means.rng) for _ in range(2))
            stretch = np.logspace(0, -strength, layer.rank)
            M, inverse = (left * stretch) @ right, right.T @ (left / stretch).T
            return with_factors(layer, layer.B @ inverse, M @ layer.A)

        return (changed(adapter, turned),)


def orthogonal(size: int, rng: np.random.Generator) -> Float64:
    """A random rotation or reflection, (size, size)."""
    turn: Float64 = np.linalg.qr(rng.standard_normal((size, size)))[0]
    return turn
