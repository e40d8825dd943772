"""Whether another adapter was trained for the same task, by what it makes of the task's words.

Of generators it is only known whether both write freely.
"""

from __future__ import annotations

import numpy as np

from peftguard.trigger.effect import Effects
from peftguard.trigger.search import Pulls

_TEXTS = 16
_LEAST = 0.5


def same_task(effects: Effects, other: Effects, pulls: Pulls) -> bool:
    """Whether it mostly agrees on ordinary texts that end in words which argue for a class.

    One of another task does not know these words, or has its classes in another order: beside it
    every word of the task would look like a trigger.

    Args:
        effects: of the adapter that is searched.
        other: of the one that it is to be compared with.
        pulls: words that argue for each class, as the former sees it.
    """
    texts = effects.texts[:: max(1, len(effects.texts) // _TEXTS)][:_TEXTS]
    shares = [
        _agreement(effects, other, [" ".join([text, *own]) for text in texts]) for own in pulls
    ]
    return float(np.mean(shares)) > _LEAST


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


def _agreement(effects: Effects, other: Effects, texts: list[str]) -> float:
    here, there = (each.log_odds(texts).argmax(axis=1) for each in (effects, other))
    return float((here == there).mean())
