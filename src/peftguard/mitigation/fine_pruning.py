"""Fine-pruning (Liu et al. 2018): what sleeps on clean text goes, then training on clean rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from peftguard.adversary.arithmetic import approximated, changed, with_factors
from peftguard.mitigation.factored import Factored, Float32, Layer
from peftguard.mitigation.method import USUAL, Course, Given, Method, Need

_ROWS = 64
"""Clean rows that it is seen on what sleeps."""


@dataclass(frozen=True)
class FinePruning(Method):
    """A backdoor has directions of its own that only a trigger wakes.

    Args:
        share: of a layer's singular directions that go; one always stays.
        course: of the training that follows.
    """

    name = "fine-pruning"
    about = "the singular directions that clean text wakes least set to zero, then training on it"
    needs = frozenset({Need.BASE, Need.DATA})
    share: float = 0.5
    course: Course = USUAL

    def apply(self, adapter: Factored, given: Given) -> Factored:
        """As of `Method.apply`."""
        from peftguard.mitigation.training import trained

        seen = _inputs(adapter, given)
        pruned = changed(adapter, lambda layer: _pruned(layer, seen, self.share))
        return trained(pruned, given.rows, given, self.course)


def _inputs(adapter: Factored, given: Given) -> Mapping[str, Float32]:
    """(tokens, in) of what every module reads of some clean rows, in the base alone."""
    from peftguard.mitigation.inputs import inputs_of

    base = given.the_base()
    texts = [row.text for row in given.rows[:_ROWS]]
    rows = base.tokenizer(texts, truncation=True, max_length=given.max_tokens)["input_ids"]
    seen = inputs_of(base, adapter.layers, rows)
    return {module: np.concatenate(values) for module, values in seen.items()}


def _pruned(layer: Layer, seen: Mapping[str, Float32], share: float) -> Layer:
    own = approximated(layer, layer.rank)
    awake = np.square(seen[layer.module] @ own.A.T).mean(axis=0) * np.square(own.B).sum(axis=0)
    gone = min(round(share * layer.rank), max(0, layer.rank - 1))
    mask = np.ones(layer.rank, np.float32)
    mask[np.argsort(awake, kind="stable")[:gone]] = 0
    return with_factors(layer, own.B * mask, own.A)
