"""Gaussian noise on the factors."""

from __future__ import annotations

import numpy as np

from peftguard.adversary.arithmetic import Float32, Float64, changed, with_factors
from peftguard.adversary.evasion import Evasion, Means, Parts
from peftguard.mitigation.factored import Factored, Layer


class Noise(Evasion):
    """The first row of the paper's robustness table; it knows nothing of the detector."""

    name = "noise"
    about = "Gaussian noise on both factors"
    strength = "standard deviation, in root mean squares of the factor"
    strengths = (0.1, 0.3, 1.0)

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""

        def noisy(layer: Layer) -> Layer:
            B, A = (part + strength * noise_like(part, means.rng) for part in (layer.B, layer.A))
            return with_factors(layer, B, A)

        return (changed(adapter, noisy),)


def noise_like(factor: Float32, rng: np.random.Generator) -> Float64:
    """Normal noise of the factor's root mean square."""
    size = float(np.sqrt(np.mean(np.square(factor)))) if factor.size else 0.0
    return size * rng.standard_normal(factor.shape)
