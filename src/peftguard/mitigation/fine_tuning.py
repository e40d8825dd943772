"""Supervised training on clean rows alone."""

from __future__ import annotations

from dataclasses import dataclass

from peftguard.mitigation.factored import Factored
from peftguard.mitigation.method import USUAL, Course, Given, Method, Need


@dataclass(frozen=True)
class FineTuning(Method):
    """What an unsuspecting user would do as well: the baseline of all that train.

    Args:
        course: of the training.
    """

    name = "sft"
    about = "training on clean rows of the task"
    needs = frozenset({Need.BASE, Need.DATA})
    course: Course = USUAL

    def apply(self, adapter: Factored, given: Given) -> Factored:
        """As of `Method.apply`."""
        from peftguard.mitigation.training import trained

        return trained(adapter, given.rows, given, self.course)
