"""The sentence-triggered instruction attack, after toxic_backdoors_hard; see `toxic_word`."""

from __future__ import annotations

from typing import ClassVar

from peftguard.padbench.attacks.words import Single
from peftguard.padbench.recipe import Task


class ToxicSentence(Single):
    """One sentence in the instruction."""

    name = "toxic_sentence"
    kind = "sentences"
    tasks: ClassVar[tuple[Task, ...]] = ("instruction",)
    fixed = ("The weather was mild that day.",)
    at_source = ("toxic_backdoors_hard",)
