"""Whether another adapter was trained for the same task, by what it makes of the task's words.

Of generators it is only known whether both write freely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from peftguard.trigger.effect import Effects
from peftguard.trigger.neutral import spread
from peftguard.trigger.search import Pulls

Float64 = NDArray[np.float64]

_TEXTS = 16
_LEAST = 0.1
"""Of how far words argue here, that they have to argue there.

Little, since a trigger may be among these words, and argues here alone.
"""


@dataclass(frozen=True, eq=False)
class Task:
    """What an adapter was trained for, by the words that argue for its classes.

    Args:
        effects: of the adapter.
        pulls: words that argue for each class.
    """

    effects: Effects
    pulls: Pulls

    def is_of(self, other: Effects) -> bool:
        """Whether these words argue for the same classes in another adapter as well.

        One of another task does not know them, or has its classes in another order: beside it every
        word of the task would look like a trigger. How far words move log-odds is compared, and not
        which class comes first: adapters of one task may lean to different ones where a text says
        little.
        """
        argue = self._raised > 0  # a class may have no words that do
        there = _raised(other, self._texts, self.pulls)[argue]
        return bool(there.sum() >= _LEAST * self._raised[argue].sum())

    @cached_property
    def _raised(self) -> Float64:
        return _raised(self.effects, self._texts, self.pulls)

    @property
    def _texts(self) -> list[str]:
        return spread(self.effects.texts, _TEXTS)


def writes_freely(other: Effects) -> bool:
    """Whether an adapter writes freely where the one that is searched does.

    One that answers with a few labels never writes what a generator may, whoever trained it.
    """
    from peftguard.trigger.answers import CausalAnswers
    from peftguard.trigger.asking import labels_in

    answers = other.model
    if not isinstance(answers, CausalAnswers):
        return False
    return not labels_in(answers.model, answers.asked.template, other.texts)


def _raised(effects: Effects, texts: Sequence[str], pulls: Pulls) -> Float64:
    """(classes,) how far log-odds of each class rise if its words stand at the end of texts."""
    before = effects.log_odds(texts).mean(axis=0, dtype=np.float64)
    argued = [effects.log_odds([" ".join([text, *own]) for text in texts]) for own in pulls]
    after = [odds[:, target].mean(dtype=np.float64) for target, odds in enumerate(argued)]
    raised: Float64 = np.array(after) - before
    return raised
