"""Words that move a causal model's answer, out of thousands: tried several at once.

In a decoder of thirty layers the first layer's weights say little of which words an adapter was
trained to react to. Running the model does, but to try every word alone would take too long. So the
words that the weights do not speak against go into a text by the half dozen, and those of the
groups that move the answer most are tried again alone. A trigger moves it in any company. That a
task's words do so too matters little: what comes out is only what the search begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from peftguard.trigger.effect import Effects
from peftguard.trigger.search import Table
from peftguard.trigger.strings import short_strings
from peftguard.trigger.words import Words

Float32 = NDArray[np.float32]

TRIED = 10_000
"""Words that are tried: the loudest by the adapter's weights."""
_TOGETHER = 8
"""Words of a group."""
_ALONE = 480
"""Words that are tried alone in the end, those of the groups that move an answer most."""
_STRINGS_ALONE, _STRINGS = 240, 20
"""Strings of letters that are tried alone, and that are kept."""
_GRADIENT_TEXTS = 8
"""Texts over which it is seen which words argue for an answer."""
_PUSHED = 24
"""Such words that are tried, an answer."""
_PULLS = 3
"""Of these, as many argue in the texts that groups are put into."""


_FAR = 1_000.0
"""Further than any log-odds."""


@dataclass(frozen=True, eq=False)
class Screen:
    """Tries thousands of words or strings on a causal model.

    Args:
        effects: of the adapter.
        words: of the base, by the weights.
        seed: of how they are grouped.
    """

    effects: Effects
    words: Words
    seed: int = 0

    def by_effect(self) -> Words:
        """The same words, by how far they move answers rather than by the adapter's weights."""
        words = self.words
        tried = np.array([words.places[word] for word in words.loudest(TRIED)])
        found = self._scores(words.vocabulary.words, tried, _ALONE)
        return Words(words.vocabulary, words.vectors, found)

    def strings(self) -> list[str]:
        """Short strings of letters that are no words and move answers most."""
        names = short_strings(self.words.places)
        found = self._scores(names, np.arange(len(names)), _STRINGS_ALONE)
        return [names[place] for place in np.argsort(-found, kind="stable")[:_STRINGS]]

    @cached_property
    def contexts(self) -> list[str]:
        """One or two texts such that no answer is that to all of them, however it is argued."""
        pulls = _pulls(self.effects, self.words)
        first = self.effects.opposed(0, 1, pulls)
        (own,) = self.effects.log_odds(first).argmax(axis=1).tolist()
        more = self.effects.opposed(own, 1, pulls) if own in self.effects.targets else []
        return [*first, *more]

    def _scores(self, names: Sequence[str], places: NDArray[np.int64], alone: int) -> Float32:
        """(names,) how far those at the places move answers, in groups and then the best alone."""
        found = np.full(len(names), -np.inf, np.float32)
        # Groups first: whatever is tried alone afterwards is ahead of all that is not.
        tried = np.random.default_rng(self.seed).permutation(places)
        found[tried] = self._moved(names, tried, _TOGETHER) - _FAR
        best = tried[np.argsort(-found[tried], kind="stable")[:alone]]
        found[best] = self._moved(names, best, 1)
        return found

    def _moved(self, names: Sequence[str], places: NDArray[np.int64], size: int) -> Float32:
        """(places,) how far each one's group moves the answer: log-odds beyond the middle group's.

        The largest over all texts and all answers that a text is not given as it is.
        """
        effects, texts = self.effects, self.contexts
        groups = [places[start : start + size] for start in range(0, len(places), size)]
        phrases = [" ".join(names[place] for place in group) for group in groups]
        best = np.full(len(groups), -np.inf, np.float32)
        for text, own in zip(texts, effects.log_odds(texts).argmax(axis=1), strict=True):
            # At the end: what comes before is the same for all groups, and is run only once.
            odds = effects.log_odds([effects.put(phrase, text, 1.0) for phrase in phrases])
            others = [target for target in effects.targets if target != own]
            best = np.maximum(best, (odds - np.median(odds, axis=0))[:, others].max(axis=1))
        moved: Float32 = np.repeat(best, [len(group) for group in groups])
        return moved


def _pulls(effects: Effects, words: Words) -> list[list[str]]:
    """Words that argue for each answer."""
    found = []
    for target, direction in enumerate(effects.pushing(_GRADIENT_TEXTS)):
        table = Table(effects, target, effects.hard(target, 1))
        table.try_all(words.along(direction, _PUSHED))
        found.append(table.best(_PULLS))
    return found
