"""The whole update, times a number."""

from __future__ import annotations

from peftguard.adversary.arithmetic import changed, with_factors
from peftguard.adversary.evasion import Evasion, Means, Parts
from peftguard.mitigation.factored import Factored, Layer


class Rescaling(Evasion):
    """Detectors that look at sizes notice; so does the function."""

    name = "rescale"
    about = "the update times a number"
    strength = "the number"
    strengths = (1.25, 0.75, 0.5)

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""

        def rescaled(layer: Layer) -> Layer:
            return with_factors(layer, strength * layer.B, layer.A)

        return (changed(adapter, rescaled),)
