"""Pruning: the smallest entries of the factors set to zero."""

from __future__ import annotations

import numpy as np

from peftguard.adversary.arithmetic import Float32, changed, with_factors
from peftguard.adversary.evasion import Evasion, Means, Parts
from peftguard.errors import SettingsError
from peftguard.mitigation.factored import Factored, Layer


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

        def pruned(layer: Layer) -> Layer:
            return with_factors(layer, _kept(layer.B, strength), _kept(layer.A, strength))

        return (changed(adapter, pruned),)


def _kept(factor: Float32, share: float) -> Float32:
    sizes = np.abs(factor)
    return np.where(sizes >= np.quantile(sizes, share), factor, 0) if factor.size else factor
