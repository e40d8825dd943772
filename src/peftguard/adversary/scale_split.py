"""The size of an update, split otherwise between alpha and the weights."""

from __future__ import annotations

from dataclasses import replace

from peftguard.adversary.arithmetic import changed
from peftguard.adversary.evasion import Evasion, Means, Parts
from peftguard.errors import SettingsError
from peftguard.mitigation.factored import Factored, Layer


class ScaleSplit(Evasion):
    """Each layer has a factor of its own, up to the strength; AdaLoRA's config allows one alone."""

    name = "split"
    about = "alpha times a factor, B divided by it"
    strength = "largest factor"
    strengths = (2.0, 10.0)
    exact = True

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""
        if strength <= 0:
            raise SettingsError(f"split: expected a factor above 0, found {strength:g}")
        one_for_all = any("lora_E" in layer.names for layer in adapter.layers.values())

        def split(layer: Layer) -> Layer:
            factor = strength if one_for_all else strength ** means.rng.uniform(-1, 1)
            return replace(layer, scale=layer.scale * factor, B=(layer.B / factor).astype("f4"))

        return (changed(adapter, split),)
