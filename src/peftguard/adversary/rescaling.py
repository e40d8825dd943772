"""The whole update, times a number."""

from __future__ import annotations

from peftguard.adversary.arithmetic import rescaled
from peftguard.adversary.evasion import Evasion, Means, Parts
from peftguard.mitigation.factored import Factored


class Rescaling(Evasion):
    """Detectors that look at sizes notice; so does the function."""

    name = "rescale"
    about = "the update times a number"
    strength = "the number"
    strengths = (1.25, 0.75, 0.5)

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""
        return (rescaled(adapter, strength),)
