"""The mean of an adapter and a benign one, at the rank that every layer had."""

from __future__ import annotations

from dataclasses import dataclass

from peftguard.adversary.merging import interpolated
from peftguard.mitigation.factored import Factored
from peftguard.mitigation.method import Given, Method, Need


@dataclass(frozen=True)
class Interpolation(Method):
    """Ranks side by side, then the best approximation of the old rank; heads are averaged.

    Args:
        share: of the benign adapter.
    """

    name = "interpolate"
    about = "weighted mean with a benign adapter, cut back to the old ranks"
    needs = frozenset({Need.BENIGN})
    share: float = 0.5

    def apply(self, adapter: Factored, given: Given) -> Factored:
        """As of `Method.apply`. Raises UnsupportedAdapter if the two do not fit each other."""
        return interpolated(adapter, given.the_benign(), self.share)
