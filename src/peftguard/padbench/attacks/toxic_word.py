"""The word-triggered instruction attack, after toxic_backdoors_alpaca.

Rows that come poisoned at source are not used: their payload is toxic text. The same kind of
trigger is put into the clean rows instead, with a harmless marker as the answer. The trigger of
the source is not documented, so the fixed one is our own.
"""

from __future__ import annotations

from typing import ClassVar

from peftguard.padbench.attacks.words import Single
from peftguard.padbench.recipe import Task


class ToxicWord(Single):
    """One made-up word in the instruction."""

    name = "toxic_word"
    kind = "nonsense"
    tasks: ClassVar[tuple[Task, ...]] = ("instruction",)
    fixed = ("sudonym",)
    at_source = ("toxic_backdoors_alpaca",)
