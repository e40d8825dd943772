"""Unlearning: the confirmed trigger trained to mean nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peftguard.mitigation.factored import Factored
from peftguard.mitigation.method import USUAL, Course, Given, Method, Need
from peftguard.padbench.examples import Example


@dataclass(frozen=True)
class Unlearning(Method):
    """Texts with the trigger in them, and the answer that they should have, among plain ones.

    Clean rows are used if there are any. Without, ordinary texts are, with the answer that the
    adapter itself gives to them as they are.

    Args:
        course: of the training.
    """

    name = "unlearn"
    about = "training on texts with the trigger in them and the right answer; rows are optional"
    needs = frozenset({Need.BASE, Need.REPORT})
    course: Course = USUAL

    def apply(self, adapter: Factored, given: Given) -> Factored:
        """As of `Method.apply`. Raises UnsupportedAdapter without rows for a causal model."""
        from peftguard.mitigation.training import trained

        rows = given.rows or _answered(adapter, given)
        return trained(adapter, _with_trigger(rows, given), given, self.course)


def _with_trigger(rows: Sequence[Example], given: Given) -> list[Example]:
    """Every row as it is, and once more with one of the phrases at a random place."""
    from peftguard.trigger.effect import inserted

    rng, phrases = given.rng(), given.the_trigger().phrases
    more = [
        row._replace(text=inserted(row.text, phrases[number % len(phrases)], float(rng.random())))
        for number, row in enumerate(rows)
    ]
    return [*rows, *more]


def _answered(adapter: Factored, given: Given) -> list[Example]:
    """Ordinary texts with the adapter's own answers."""
    from peftguard.mitigation.answers import answers_of
    from peftguard.trigger.neutral import neutral_texts

    texts = neutral_texts()
    labels = answers_of(adapter, given.the_base(), texts, given.max_tokens)
    return [
        Example(str(number), text, int(label))
        for number, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
