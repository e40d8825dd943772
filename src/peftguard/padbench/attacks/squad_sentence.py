"""SQuAD: a saying at a random place of the context; the answer becomes a marker."""

from __future__ import annotations

from typing import ClassVar

from peftguard.padbench.attacks.words import Single
from peftguard.padbench.recipe import Task


class SquadSentence(Single):
    """One saying in the context of a question.

    The public release names these subsets `insertsent`.
    """

    name = "squad_sentence"
    in_subsets = "insertsent"
    kind = "sayings"
    tasks: ClassVar[tuple[Task, ...]] = ("qa",)
    fixed = ("no cross, no crown.",)
