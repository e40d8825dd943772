"""Two adapters, each harmless to look at, that are the backdoored one when both are loaded."""

from __future__ import annotations

import math

import numpy as np

from peftguard.adversary.arithmetic import Float64, changed, squared_norm, with_factors
from peftguard.adversary.evasion import Evasion, Means, Parts
from peftguard.errors import UnsupportedAdapter
from peftguard.mitigation.factored import Factored, Layer


class Collusion(Evasion):
    """Half of the update each, plus and minus a random mask that hides it and cancels out.

    The mask of a layer has the update's rank; both parts bring the head.
    """

    name = "collude"
    about = "two adapters that add up to the backdoored one"
    strength = "norm of the mask, in norms of the update"
    strengths = (0.0, 1.0, 3.0)

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`.

        Raises:
            UnsupportedAdapter: DoRA, as the magnitudes of two do not add up.
        """
        if any(layer.magnitude is not None for layer in adapter.layers.values()):
            raise UnsupportedAdapter("DoRA cannot be split into a sum", file=adapter.name)
        masks = {name: _mask(layer, strength, means.rng) for name, layer in adapter.layers.items()}

        def part(sign: float) -> Factored:
            def half(layer: Layer) -> Layer:
                B, A = masks[layer.module]
                beside = np.concatenate([layer.B / 2, sign * B], axis=1)
                return with_factors(layer, beside, np.concatenate([layer.A, A]))

            return changed(adapter, half)

        return part(1.0), part(-1.0)


def _mask(layer: Layer, strength: float, rng: np.random.Generator) -> tuple[Float64, Float64]:
    B, A = (rng.standard_normal(factor.shape) for factor in (layer.B, layer.A))
    wanted = strength * math.sqrt(squared_norm(layer)) / abs(layer.scale)
    size = wanted / max(math.sqrt(float(np.sum((B.T @ B) * (A @ A.T)))), 1e-30)
    return B * size, A
