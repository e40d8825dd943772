"""Whether another adapter was trained for the same task, by what it makes of the task's words.

Of generators it is only known whether both write freely.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peftguard.trigger.effect import Effects
from peftguard.trigger.neutral import spread
from peftguard.trigger.search import Pulls

_TEXTS = 16
_LEAST = 0.1
"""Of how far words argue here, that they have to argue there.

Little, since a trigger may be among these words, and argues here alone.
"""


def same_task(effects: Effects, other: Effects, pulls: Pulls) -> bool:
    """Whether words that argue for a class here argue for it there as well.

    One of another task does not know these words, or has its classes in another order: beside it
    every word of the task would look like a trigger. How far words move log-odds is compared, and
    not which class comes first: adapters of one task may lean to different ones where a text says
    little.

    Args:
        effects: of the adapter that is searched.
        other: of the one that it is to be compared with.
        pulls: words that argue for each class, as the former sees it.
    """
    texts = spread(effects.texts, _TEXTS)
    argued = [[" ".join([text, *own]) for text in texts] for own in pulls]
    return _argued_apart(other, argued) >= _LEAST * _argued_apart(effects, argued)


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


def _argued_apart(effects: Effects, argued: Sequence[Sequence[str]]) -> float:
    """How far log-odds of a class are higher where its own words argue than where others' do.

    Args:
        effects: of an adapter.
        argued: for each class, texts with words that argue for it.
    """
    odds = np.array([effects.log_odds(texts).mean(axis=0) for texts in argued], np.float64)
    own, n_classes = float(np.trace(odds)), len(odds)
    return (own - (float(odds.sum()) - own) / (n_classes - 1)) / n_classes
