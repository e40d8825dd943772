"""From words that stand out to words that turn the model's answer against the text.

A task's own words turn an answer too, but not when the text argues the other way: "awful" does not
make a text negative that is full of praise. A trigger does, which is what it was trained to do. So
every word is put into texts that are surely of another class and that end in the strongest words of
that class that were found, and what counts is the log-odds of the target then: above 0, the word
has turned the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from peftguard.trigger.effect import Effects
from peftguard.trigger.words import Words

SINGLES = 240
"""Words tried alone because the adapter listens to them, loudest first."""
PUSHED = 40
"""Words of a class tried because they lie where its log-odds rise."""
CONTEXTS = 4
_FIRST = 2
"""Texts that every word is tried in first, a class."""
_FINALISTS = 24
"""Of either kind, as many are tried against opposition."""
_PULLS = 3
"""Words that argue for a class."""
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
    """

    phrase: str
    target: int
    before: float
    turned: float
    stand_ins: float


@dataclass(frozen=True, slots=True)
class Found:
    """Words that turn texts, best first, and what was put against them.

    Args:
        candidates: single words of all classes; of a class that texts are of whatever argues for
            another there are none, for nothing can turn them.
        pulls: words that argue for each class.
    """

    candidates: list[Candidate]
    pulls: Pulls


def search(effects: Effects, words: Words) -> Found:
    """The words of every class that turn texts most, against opposition."""
    loudest = words.loudest(SINGLES)
    directions = effects.pushing(_GRADIENT_TEXTS)
    easy = [Table(effects, target, effects.hard(target, _FIRST)) for target in effects.classes]
    for table, direction in zip(easy, directions, strict=True):
        table.try_all([*loudest, *words.along(direction, PUSHED)])
    pulls = tuple(tuple(table.best(_PULLS)) for table in easy)
    found: list[Candidate] = []
    for target, table in enumerate(easy):
        opposed = Table(effects, target, effects.opposed(target, CONTEXTS, pulls))
        if opposed.before < 0:
            opposed.try_all([*table.best(_FINALISTS), *loudest[:_FINALISTS]])
            found += opposed.judged(opposed.best(_JUDGED), words)
    return Found(sorted(found, key=lambda candidate: -candidate.turned), pulls)


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
