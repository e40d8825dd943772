"""Pruning: what is small in every update set to zero, by directions or by entries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from peftguard.adversary.arithmetic import approximated, changed, pruned, with_factors
from peftguard.mitigation.factored import Factored, Layer
from peftguard.mitigation.method import Given, Method


@dataclass(frozen=True)
class DirectionPruning(Method):
    """The smallest singular directions of every update set to zero.

    Args:
        share: of a layer's directions that go; the largest always stays.
    """

    name = "prune"
    about = "the smallest singular directions of every update set to zero"
    share: float = 0.5

    def apply(self, adapter: Factored, given: Given) -> Factored:
        """As of `Method.apply`."""

        def shortened(layer: Layer) -> Layer:
            kept = max(1, layer.rank - round(self.share * layer.rank))
            own = approximated(layer, layer.rank)
            mask = (np.arange(layer.rank) < kept).astype(np.float32)
            return with_factors(layer, own.B * mask, own.A)

        return changed(adapter, shortened)


@dataclass(frozen=True)
class EntryPruning(Method):
    """The smallest entries of both factors set to zero, the factors first made orthogonal.

    So the result does not depend on how an update happens to be written as a product.

    Args:
        share: of the entries of either factor that go.
    """

    name = "prune-entries"
    about = "the smallest entries of both factors set to zero"
    share: float = 0.5

    def apply(self, adapter: Factored, given: Given) -> Factored:
        """As of `Method.apply`."""
        return changed(adapter, lambda layer: pruned(approximated(layer, layer.rank), self.share))
