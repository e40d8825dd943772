"""The whole update, times a number below one."""

from __future__ import annotations

from dataclasses import dataclass

from peftguard.adversary.arithmetic import changed, with_factors
from peftguard.mitigation.factored import Factored, Layer
from peftguard.mitigation.method import Given, Method


@dataclass(frozen=True)
class Rescaling(Method):
    """What the adapter learnt last, and least surely, goes first. DoRA's magnitudes stay.

    Args:
        factor: of the update.
    """

    name = "rescale"
    about = "the update times a number below one"
    factor: float = 0.5

    def apply(self, adapter: Factored, given: Given) -> Factored:
        """As of `Method.apply`."""

        def rescaled(layer: Layer) -> Layer:
            return with_factors(layer, self.factor * layer.B, layer.A)

        return changed(adapter, rescaled)
