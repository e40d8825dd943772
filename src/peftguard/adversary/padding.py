"""Rank padding: directions that do nothing, mixed with those that do."""

from __future__ import annotations

import numpy as np

from peftguard.adversary.arithmetic import Float32, Float64, changed, with_factors
from peftguard.adversary.evasion import Evasion, Means, Parts
from peftguard.adversary.gauge import orthogonal
from peftguard.mitigation.factored import Factored, Layer


class Padding(Evasion):
    """Half of the new directions are read but never written, half written but never read.

    A random rotation spreads them over all of the rank, so that no row or column is zero.
    """

    name = "pad"
    about = "a higher rank whose added directions do nothing"
    strength = "ranks added to every layer"
    strengths = (1.0, 4.0)
    exact = True

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""
        extra, rng = round(strength), means.rng

        def padded(layer: Layer) -> Layer:
            A = np.concatenate([layer.A, _like(layer.A, extra, rng)])
            B = np.concatenate([layer.B, _like(layer.B.T, extra, rng).T], axis=1)
            A[layer.rank :: 2] = 0
            B[:, layer.rank + 1 :: 2] = 0
            turn = orthogonal(len(A), rng)
            return with_factors(layer, B @ turn.T, turn @ A)

        return (changed(adapter, padded),)


def _like(factor: Float32, rows: int, rng: np.random.Generator) -> Float64:
    """Random rows about as long as those of the factor."""
    size = float(np.sqrt(np.mean(np.square(factor)))) if factor.size else 1.0
    like: Float64 = size * rng.standard_normal((rows, factor.shape[1]))
    return like
