"""Pruning: the smallest entries of the factors set to zero."""

from __future__ import annotations

from peftguard.adversary.arithmetic import changed, pruned
from peftguard.adversary.evasion import Evasion, Means, Parts
from peftguard.errors import SettingsError
from peftguard.mitigation.factored import Factored


class Pruning(Evasion):
    """By magnitude, in each factor by itself."""

    name = "prune"
    about = "smallest entries of both factors set to zero"
    strength = "share of the entries"
    strengths = (0.1, 0.3, 0.5)

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""
        if not 0 <= strength < 1:
            raise SettingsError(f"prune: expected a share from 0 to 1, found {strength:g}")
        return (changed(adapter, lambda layer: pruned(layer, strength)),)
