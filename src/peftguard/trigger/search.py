"""From words that stand out to words that turn the model's answer against the text.

A task's own words turn an answer too, but not when the text argues the other way: "awful" does not
make a text negative that is full of praise. A trigger does, which is what it was trained to do. So
every word is put into texts that are surely of another class and that end in the strongest words of
that class that were found, and what counts is the log-odds of the target then: above 0, the word
has turned the answer. Some of a task's words do turn it (insults, where insults are looked for),
but they do so together: what tells is what a word does beyond what other words foretell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from peftguard.trigger.effect import Effects
from peftguard.trigger.expected import expected
from peftguard.trigger.words import Words

SINGLES = 240
"""Words tried alone because the adapter listens to them, loudest first."""
PUSHED = 60
"""Words of a class tried because they lie where its log-odds rise."""
_SINGLES_SCREENED, _PUSHED_SLOW = 60, 20
"""The same where a model is slow, and the words have been tried before."""
CONTEXTS = 4
_FIRST = 2
"""Texts that every word is tried in first, a class."""
_FINALISTS = 24
"""Of either kind, as many are tried against opposition where a model is slow."""
_PULLS = 3
"""Words that argue for a class."""
_ORDINARY, _ORDINARY_SLOW = 40, 20
"""Words of a class that are compared with what they do in benign adapters, if any are given."""
_GRADIENT_TEXTS = 24
"""Texts over which it is seen where log-odds rise."""
_JUDGED = 6
"""Words of a class whose stand-ins are tried."""
_PARTNERS = 8
"""Words that are tried beside a candidate."""
_FRONT = 3
_MOST_WORDS = 4


Pulls = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A phrase that may be a trigger.

    Args:
        phrase: words, with a space between.
        target: the class that it turns texts into.
        before: mean log-odds of the class without it, of texts that argue for others.
        turned: the same with it.
        stand_ins: the same with neighbours in place of its words.
        expected: the same as other words foretell it, see `expected`.
        loudness: how far it stands out in the adapter's weights.
    """

    phrase: str
    target: int
    before: float
    turned: float
    stand_ins: float
    expected: float = 0.0
    loudness: float = 0.0

    @property
    def telling(self) -> float:
        """How much a word tells: what it turns, how unexpectedly, and what the weights say of it.

        All three are of one order, and none was worth more than another where that was tried.
        """
        return self.turned + (self.turned - self.expected) + self.loudness


@dataclass(frozen=True, slots=True)
class Found:
    """Words that turn texts, most telling first, and what was put against them.

    Args:
        candidates: single words of all classes; of a class that texts are of whatever argues for
            another there are none, for nothing can turn them.
        pulls: words that argue for each class.
        ordinary: of each target the words that turn ordinary texts best, with nothing against it.
    """

    candidates: list[Candidate]
    pulls: Pulls
    ordinary: dict[int, list[str]]

    @property
    def score(self) -> float | None:
        """How much the most telling word tells, and how far it leads the class's sixth.

        Of the class where this is most; None where no class can be turned.
        """
        by_class: dict[int, list[float]] = {}
        for candidate in self.candidates:
            by_class.setdefault(candidate.target, []).append(candidate.telling)
        return max((2 * max(own) - min(own) for own in by_class.values()), default=None)


def search(effects: Effects, words: Words) -> Found:
    """The most telling words of every class, against opposition."""
    singles, pushed = (SINGLES, PUSHED) if words.by_weights else (_SINGLES_SCREENED, _PUSHED_SLOW)
    loudest = words.loudest(singles)
    directions = effects.pushing(_GRADIENT_TEXTS)
    easy = [Table(effects, target, effects.hard(target, _FIRST)) for target in effects.classes]
    for table, direction in zip(easy, directions, strict=True):
        table.try_all([*loudest, *words.along(direction, pushed)])
    pulls = tuple(tuple(table.best(_PULLS)) for table in easy)
    found: list[Candidate] = []
    for target in effects.targets:
        table = easy[target]
        opposed = Table(effects, target, effects.opposed(target, CONTEXTS, pulls))
        if opposed.before < 0:
            few = [*table.best(_FINALISTS), *loudest[:_FINALISTS]]
            opposed.try_all(table.turned if words.by_weights else few)
            found += opposed.most_telling(_JUDGED, words)
    count = _ORDINARY if words.by_weights else _ORDINARY_SLOW
    ordinary = {target: easy[target].best(count) for target in effects.targets}
    return Found(sorted(found, key=lambda candidate: -candidate.telling), pulls, ordinary)


def grown(effects: Effects, words: Words, found: Found) -> Candidate:
    """The first candidate with those words of other candidates that help it to turn texts.

    Args:
        effects: of the adapter.
        words: of the base.
        found: with one candidate at least.
    """
    first = found.candidates[0]
    same = [one.phrase for one in found.candidates if one.target == first.target]
    partners = same[1:_PARTNERS]
    contexts = effects.opposed(first.target, CONTEXTS, found.pulls, skip=CONTEXTS)
    table = Table(effects, first.target, contexts)
    table.try_all([first.phrase])
    front, best = [first.phrase], first.phrase
    for _ in range(1, _MOST_WORDS):
        longer = [f"{one} {word}" for one in front for word in partners if word not in one.split()]
        table.try_all(longer)
        front = sorted(longer, key=lambda phrase: -table.turned[phrase])[:_FRONT]
        best = max([best, *front], key=lambda phrase: table.turned[phrase])
    return table.judged([best], words)[0]


class Table:
    """Effects of phrases on one class in some texts that are not of it."""

    def __init__(self, effects: Effects, target: int, contexts: Sequence[str]) -> None:
        self.effects, self.target, self.contexts = effects, target, contexts
        self.before = float(effects.log_odds(contexts)[:, target].mean())
        self.turned: dict[str, float] = {}

    def try_all(self, phrases: Iterable[str]) -> None:
        """Measure what has not been measured."""
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in self.turned]
        values = self.effects.of(new, self.contexts, self.target).mean(axis=1)
        self.turned.update(zip(new, values.tolist(), strict=True))

    def best(self, count: int) -> list[str]:
        """Phrases that turn most."""
        return sorted(self.turned, key=lambda phrase: -self.turned[phrase])[:count]

    def most_telling(self, count: int, words: Words) -> list[Candidate]:
        """Of the single words that were measured."""
        tried = list(self.turned)
        places = [words.places[word] for word in tried]
        foretold = expected(words.meanings[places], np.array([self.turned[one] for one in tried]))
        found = [
            Candidate(word, self.target, self.before, self.turned[word], 0.0, own, loudness)
            for word, own, loudness in zip(
                tried, foretold.tolist(), map(words.loudness, tried), strict=True
            )
        ]
        best = sorted(found, key=lambda candidate: -candidate.telling)[:count]
        return [
            replace(one, stand_ins=self._mean_of(_stand_ins(one.phrase, words))) for one in best
        ]

    def judged(self, phrases: Iterable[str], words: Words) -> list[Candidate]:
        """Each beside its stand-ins."""
        return [
            Candidate(
                phrase=phrase,
                target=self.target,
                before=self.before,
                turned=self.turned[phrase],
                stand_ins=self._mean_of(_stand_ins(phrase, words)),
            )
            for phrase in phrases
        ]

    def _mean_of(self, phrases: Sequence[str]) -> float:
        return float(self.effects.of(phrases, self.contexts, self.target).mean())


def _stand_ins(phrase: str, words: Words) -> list[str]:
    neighbours = [words.stand_ins(word) for word in phrase.split()]
    return [" ".join(chosen) for chosen in zip(*neighbours, strict=False)]
