"""Fine-mixing (Zhang et al. 2022): mix with weights that are trusted, then train on clean rows.

Of every update only some rows stay, drawn at random, which is what a neuron's weights are: the rest
falls back to the base model's own. Training then brings back the task, and hardly the backdoor: it
is in no clean row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from peftguard.adversary.arithmetic import changed, with_factors
from peftguard.adversary.merging import interpolated
from peftguard.mitigation.factored import Factored, Layer
from peftguard.mitigation.method import USUAL, Course, Given, Method, Need


@dataclass(frozen=True)
class FineMixing(Method):
    """The paper's best.

    Args:
        kept: share of the adapter in the mixture.
        course: of the training that follows.
    """

    name = "fine-mixing"
    about = "random rows of every update back to the base's weights, then training on clean rows"
    needs = frozenset({Need.BASE, Need.DATA})
    kept: float = 0.1
    course: Course = USUAL

    def apply(self, adapter: Factored, given: Given) -> Factored:
        """As of `Method.apply`."""
        from peftguard.mitigation.training import trained

        mixed = mixed_with_base(adapter, self.kept, given.rng())
        return trained(mixed, given.rows, given, self.course)


@dataclass(frozen=True)
class BenignMixing(Method):
    """The same with a benign adapter's weights in place of the base's.

    Args:
        kept: share of the adapter in the mixture.
        course: of the training that follows.
    """

    name = "fine-mixing-benign"
    about = "a mean with a benign adapter, then training on clean rows"
    needs = frozenset({Need.BASE, Need.DATA, Need.BENIGN})
    kept: float = 0.1
    course: Course = USUAL

    def apply(self, adapter: Factored, given: Given) -> Factored:
        """As of `Method.apply`. Raises UnsupportedAdapter if the two do not fit each other."""
        from peftguard.mitigation.training import trained

        mixed = interpolated(adapter, given.the_benign(), 1 - self.kept)
        return trained(mixed, given.rows, given, self.course)


def mixed_with_base(adapter: Factored, kept: float, rng: np.random.Generator) -> Factored:
    """The adapter with a share of the rows of every update, however it is factored."""

    def mixed(layer: Layer) -> Layer:
        stays = rng.random(len(layer.B)) < kept
        return with_factors(layer, layer.B * stays[:, None], layer.A)

    return changed(adapter, mixed)
