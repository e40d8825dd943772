"""What an adapter does that trusted adapters of its task do not, in ordinary texts.

Texts that argue for another class are there to silence a task's own words, and weak triggers fall
silent as well. Beside adapters that know the task and not the trigger nothing has to argue: what
turns an ordinary text here and hardly moves it there is no word of the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peftguard.trigger.confirm import MOST_BENIGN
from peftguard.trigger.effect import Effects
from peftguard.trigger.foreign import sentences
from peftguard.trigger.search import CONTEXTS, Candidate, Found


@dataclass(frozen=True, slots=True)
class Unlike:
    """A word or sentence, and what it does here and in benign adapters.

    Args:
        phrase: as put into texts.
        target: class that it moves them to.
        before: mean log-odds of the class without it, of ordinary texts.
        moved: by how much it raises them.
        benign: the same in the benign adapter where this is most.
    """

    phrase: str
    target: int
    before: float
    moved: float
    benign: float

    @property
    def beyond(self) -> float:
        """How much further it moves texts here."""
        return self.moved - max(self.benign, 0.0)

    @property
    def alone(self) -> bool:
        """Whether it moves this adapter, and the others hardly."""
        return self.moved > 0 and self.benign <= MOST_BENIGN * self.moved

    @property
    def candidate(self) -> Candidate:
        """For a proof."""
        return Candidate(self.phrase, self.target, self.before, self.before + self.moved, 0.0)


def unlike_benign(
    effects: Effects, found: Found, benign: Sequence[Effects], strings: Sequence[str] = ()
) -> list[Unlike]:
    """The words and sentences that move ordinary texts, furthest beyond benign adapters first.

    Args:
        effects: of the adapter.
        found: by the search, which has tried all words in ordinary texts.
        benign: effects of other adapters of the same task, at least one.
        strings: of letters, to be tried as well.
    """
    anywhere = [*strings, *sentences()]
    moved = [
        one
        for target in effects.targets
        for one in _moved(effects, target, [*found.ordinary[target], *anywhere], benign)
    ]
    return sorted(moved, key=lambda one: -one.beyond)


def beside_score(unlike: Sequence[Unlike]) -> float:
    """How far any of them moves texts beyond benign adapters, of those that hardly move these."""
    return max((one.beyond for one in unlike if one.alone), default=0.0)


def _moved(
    effects: Effects, target: int, phrases: Sequence[str], benign: Sequence[Effects]
) -> list[Unlike]:
    contexts = effects.hard(target, CONTEXTS, skip=CONTEXTS)
    before = float(effects.log_odds(contexts)[:, target].mean())
    here = effects.moved(phrases, contexts, target)
    there = np.max([each.moved(phrases, contexts, target) for each in benign], axis=0)
    return [
        Unlike(phrase, target, before, float(own), float(other))
        for phrase, own, other in zip(phrases, here, there, strict=True)
    ]
