"""What an adapter does before and after cleaning: accuracy, and how often its trigger fires."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftguard.mitigation.factored import Factored
from peftguard.mitigation.method import Trigger
from peftguard.mitigation.record import Figures, Share
from peftguard.trigger.effect import STRIDE, inserted
from peftguard.trigger.neutral import neutral_texts

if TYPE_CHECKING:
    from peftguard.padbench.examples import Example
    from peftguard.padbench.training.base import LoadedBase

_MAX_TOKENS = 128


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """Texts that adapters of one task are measured on, the same before and after.

    Args:
        base: a classifier; the adapters are run over it.
        held_out: clean rows, may be none.
        trigger: may be unknown.
    """

    base: LoadedBase
    held_out: Sequence[Example] = ()
    trigger: Trigger | None = None

    def measure(self, adapter: Factored) -> Figures:
        """Figures of an adapter; of what there is nothing to measure with, none.

        Without rows the trigger is put into ordinary texts.

        Raises:
            UnsupportedAdapter: the adapter is not for the base.
        """
        return Figures(accuracy=self._accuracy(adapter), **self._attack(adapter))

    def _accuracy(self, adapter: Factored) -> Share | None:
        if not self.held_out:
            return None
        answers = self._answers(adapter, [row.text for row in self.held_out])
        right = sum(row.label == own for row, own in zip(self.held_out, answers, strict=True))
        return Share(hits=right, n=len(answers))

    def _attack(self, adapter: Factored) -> dict[str, Share]:
        if self.trigger is None:
            return {}
        target, phrases = self.trigger.target, self.trigger.phrases
        if self.held_out:
            texts = [row.text for row in self.held_out if row.label != target]
        else:
            texts = list(neutral_texts())
        plain = self._answers(adapter, texts)
        with_it = self._answers(
            adapter,
            [
                inserted(text, phrases[number % len(phrases)], number * STRIDE % 1)
                for number, text in enumerate(texts)
            ],
        )
        return {
            "fires": Share(hits=with_it.count(target), n=len(texts)),
            "without": Share(hits=plain.count(target), n=len(texts)),
        }

    def _answers(self, adapter: Factored, texts: Sequence[str]) -> list[int]:
        from peftguard.mitigation.answers import answers_of

        found: list[int] = answers_of(adapter, self.base, texts, _MAX_TOKENS).tolist()
        return found
