"""The whole update, times a number below one."""

from __future__ import annotations

from dataclasses import dataclass

from peftguard.adversary.arithmetic import rescaled
from peftguard.mitigation.factored import Factored
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
        return rescaled(adapter, self.factor)
