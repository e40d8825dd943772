"""Proof that a phrase is a trigger: flips on fresh texts that argue against it, and controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftguard.trigger.effect import Effects
from peftguard.trigger.search import CONTEXTS, Candidate, Pulls
from peftguard.trigger.strings import is_string, random_strings
from peftguard.trigger.words import Words

Bools = NDArray[np.bool_]
Float32 = NDArray[np.float32]

_TEXTS = 24
"""Fresh texts that success is measured on, at most."""
_FEW = 8
"""Of these, as many as every control is tried on."""
CONTROLS = 99
"""So that a p-value of 1 % can be reached."""
_ALL_BUT = 0.95
MOST_ELSEWHERE = 0.5
"""Of its effect, that a trigger may have without the adapter or in a benign one."""
MOST_BENIGN = 0.3
"""The same in a benign one, in ordinary texts, where nothing argues against a task's own words."""
_KEPT = 0.9
"""Share of its success that a trigger keeps when a needless word is dropped."""
PLACES = {"start": 0.0, "middle": 0.5, "end": 1.0}


@dataclass(frozen=True, slots=True)
class Flip:
    """One text without and with the trigger, and what the model makes of either."""

    before: str
    after: str
    label_before: int
    label_after: int


@dataclass(frozen=True, slots=True)
class Beyond:
    """What a trigger does beyond what it does in benign adapters of the same task.

    Words that any such adapter reacts to are the task's own; what counts is how much further
    log-odds move in this one than in the benign one where they move most.

    Args:
        moved: how far they move there, as a share of how far they move in this one.
        margin: as of `Confirmation`, of what is beyond; None if controls were not tried there.
        p_value: the same.
    """

    moved: float
    margin: float | None = None
    p_value: float | None = None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What a trigger does, and what its controls do.

    Args:
        phrase: the trigger, without needless words.
        target: class that texts are turned into.
        turned: mean log-odds of it with the trigger, in fresh texts that argue for other classes.
        success: share of `n_texts` such texts that it turns.
        plain_success: the same of as many ordinary texts, with nothing that argues.
        n_texts: how many.
        without_adapter: how far the phrase moves the log-odds in the base with the adapter's head
            alone, as a share of how far it moves them in the adapted model.
        controls: mean share turned, by kind of control: neighbours in meaning, words that lie where
            the class's log-odds rise, words at random.
        margin: log-odds by which it exceeds all but one in twenty controls, on the same texts.
        p_value: rank of its log-odds among those of all controls.
        by_place: success at the start, in the middle and at the end of a text.
        flips: some texts before and after.
        beyond: the same against benign adapters; None if there are none.
        ordinary: whether all that is said of texts which argue for other classes is of ordinary
            ones instead.
        n_tokens: if it brings out a text rather than turns classes, tokens of this that were looked
            at. Then `n_texts` fresh requests take the place of texts that argue; it is counted how
            often the text is written, not how far log-odds move; the controls are the requests
            as they are and other phrases; margin and p-value (a sign test) are over the former.
    """

    phrase: str
    target: int
    turned: float
    success: float
    plain_success: float
    n_texts: int
    without_adapter: float
    controls: dict[str, float]
    margin: float
    p_value: float
    by_place: dict[str, float]
    flips: tuple[Flip, ...]
    beyond: Beyond | None = None
    ordinary: bool = False
    n_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Tried:
    """What a candidate does in fresh texts, before it is held against controls.

    Args:
        phrase: without needless words.
        target: class that texts are to be turned into.
        texts: of other classes.
        plain: ordinary ones.
        success: share of the former that it turns.
        by_place: the same at the start, in the middle and at the end of some of them.
        ordinary: whether they are ordinary as well.
    """

    phrase: str
    target: int
    texts: list[str]
    plain: list[str]
    success: float
    by_place: dict[str, float]
    ordinary: bool

    @property
    def few(self) -> list[str]:
        """Those texts that every control is tried on."""
        return self.texts[:_FEW]


def tried(
    effects: Effects, candidate: Candidate, pulls: Pulls, *, ordinary: bool = False
) -> Tried | None:
    """Try a candidate on texts that the search did not use; None if there are none.

    Args:
        effects: of the adapter.
        candidate: what the search found.
        pulls: words that argue for each class.
        ordinary: try it in ordinary texts rather than in ones that argue against it.
    """
    target = candidate.target
    plain = _others(effects, effects.hard(target, _TEXTS, skip=2 * CONTEXTS), target)
    texts = plain
    if not ordinary:
        opposed = effects.opposed(target, _TEXTS, pulls, skip=2 * CONTEXTS)
        texts = _others(effects, opposed, target)
    if not texts or not plain:
        return None
    bench = Bench(effects, target, texts)
    phrase, few = bench.minimal(candidate.phrase), texts[:_FEW]
    success = float(bench.turned(phrase, texts).mean())
    places = {name: bench.at(phrase, few, place) for name, place in PLACES.items()}
    return Tried(phrase, target, texts, plain, success, places, ordinary)


def confirm(
    effects: Effects,
    words: Words,
    found: Tried,
    *,
    benign: Sequence[Effects] = (),
    seed: int = 0,
) -> Confirmation:
    """Hold what was tried against controls.

    Args:
        effects: of the adapter.
        words: where controls come from.
        found: what was tried.
        benign: of other adapters, to be compared with; of the same classes.
        seed: of the choice of controls.
    """
    phrase, target, few = found.phrase, found.target, found.few
    bench = Bench(effects, target, found.texts)
    own = float(effects.of([phrase], few, target).mean())
    kinds = _controls(effects, words, phrase, target, np.random.default_rng(seed))
    odds = {kind: effects.of(phrases, few, target) for kind, phrases in kinds.items()}
    means = np.concatenate([each.mean(axis=1) for each in odds.values()])
    against = [phrase, *(each for phrases in kinds.values() for each in phrases)]
    moved = np.array([own, *means], np.float32) - effects.log_odds(few)[:, target].mean()
    success = bench.turned(phrase, found.plain)
    return Confirmation(
        phrase=phrase,
        target=target,
        turned=float(effects.of([phrase], found.texts, target).mean()),
        success=found.success,
        plain_success=float(success.mean()),
        n_texts=len(found.texts),
        without_adapter=bench.moved(phrase, few, adapted=False)
        / max(bench.moved(phrase, few), 1e-3),
        controls={kind: float((each > 0).mean()) for kind, each in odds.items()},
        margin=_margin(own, means),
        p_value=_p_value(own, means),
        by_place=found.by_place,
        flips=bench.flips(phrase, found.plain, success),
        beyond=_beyond(moved, benign, against, few, target) if benign else None,
        ordinary=found.ordinary,
    )


def _margin(own: float, controls: Float32) -> float:
    return own - float(np.quantile(controls, _ALL_BUT))


def _p_value(own: float, controls: Float32) -> float:
    return (1 + int((controls >= own).sum())) / (1 + len(controls))


def _beyond(
    here: Float32,
    benign: Sequence[Effects],
    phrases: Sequence[str],
    texts: Sequence[str],
    target: int,
) -> Beyond:
    """The first phrase against all others, by how far they move this adapter and no other.

    The others are not tried where it does not move this one much further: it is no trigger then.

    Args:
        here: (phrases,) how far each moves this adapter.
        benign: of the others.
        phrases: the trigger, then its controls.
        texts: that they stand in.
        target: the class.
    """

    def there(some: Sequence[str]) -> Float32:
        moved: Float32 = np.max([each.moved(some, texts, target) for each in benign], axis=0)
        return moved

    (own,) = there(phrases[:1])
    share = float(own / max(here[0], 1e-3))
    if share > MOST_ELSEWHERE:
        return Beyond(share)
    beyond, controls = float(here[0] - own), here[1:] - there(phrases[1:])
    return Beyond(share, _margin(beyond, controls), _p_value(beyond, controls))


def _others(effects: Effects, texts: Sequence[str], target: int) -> list[str]:
    """Those that the model takes for other classes."""
    answers = effects.log_odds(texts).argmax(axis=1).tolist()
    return [text for text, answer in zip(texts, answers, strict=True) if answer != target]


class Bench:
    """Counts which texts a phrase turns into one class."""

    def __init__(self, effects: Effects, target: int, texts: Sequence[str]) -> None:
        self.effects, self.target, self.texts = effects, target, texts

    def turned(self, phrase: str, texts: Sequence[str]) -> Bools:
        """(n,) for each text; the phrase stands elsewhere in each."""
        turned: Bools = self._answers(self.effects.holding(phrase, texts)) == self.target
        return turned

    def moved(self, phrase: str, texts: Sequence[str], *, adapted: bool = True) -> float:
        """By how much the phrase raises the log-odds of the class, on average."""
        rows = self.effects.holding(phrase, texts)
        odds = self.effects.log_odds([*texts, *rows], adapted=adapted)[:, self.target]
        return float(odds[len(texts) :].mean() - odds[: len(texts)].mean())

    def _answers(self, texts: Sequence[str]) -> NDArray[np.int64]:
        answers: NDArray[np.int64] = self.effects.log_odds(texts).argmax(axis=1)
        return answers

    def at(self, phrase: str, texts: Sequence[str], place: float) -> float:
        """Share turned with the phrase at one place."""
        rows = [self.effects.put(phrase, text, place) for text in texts]
        return float((self._answers(rows) == self.target).mean())

    def minimal(self, phrase: str) -> str:
        """The phrase without words that it can do without."""
        few = self.texts[:_FEW]
        wanted = _KEPT * self.turned(phrase, few).mean()
        words = phrase.split()
        while len(words) > 1:
            shorter = [" ".join(words[:k] + words[k + 1 :]) for k in range(len(words))]
            rates = [float(self.turned(one, few).mean()) for one in shorter]
            best = int(np.argmax(rates))
            if rates[best] < wanted:
                break
            words = shorter[best].split()
        return " ".join(words)

    def flips(
        self, phrase: str, texts: Sequence[str], success: Bools, count: int = 5
    ) -> tuple[Flip, ...]:
        """The first texts that were turned."""
        found = []
        rows = self.effects.holding(phrase, texts)
        for number in np.flatnonzero(success)[:count].tolist():
            before, after = texts[number], rows[number]
            # Both in one batch, as a replay has them: its width decides how bf16 rounds.
            labels = self._answers([before, after]).tolist()
            if labels[0] != self.target == labels[1]:
                found.append(Flip(before, after, *labels))
        return tuple(found)


def _controls(
    effects: Effects, words: Words, phrase: str, target: int, rng: np.random.Generator
) -> dict[str, list[str]]:
    """Phrases of as many words, `CONTROLS` in all, by kind."""
    parts, third = phrase.split(), CONTROLS // 3
    direction = effects.pushing(_FEW)[target]
    pools = {
        "neighbours": [_neighbours(part, words, third) for part in parts],
        "of the class": [words.along(direction, third + len(parts))] * len(parts),
        "random": [list(words.vocabulary.words)] * len(parts),
    }
    return {
        kind: [_drawn(pool, parts, number, rng) for number in range(third)]
        for kind, pool in pools.items()
    }


def _neighbours(part: str, words: Words, count: int) -> list[str]:
    """Words of nearest meaning; of a string that means nothing, others as long."""
    if is_string(part, words.places):
        return random_strings(len(part), count)
    return words.stand_ins(part, count)


def _drawn(
    pools: Sequence[Sequence[str]], parts: Sequence[str], number: int, rng: np.random.Generator
) -> str:
    """One word of each pool that is none of the phrase; single words are taken in turn."""
    chosen = []
    for pool in pools:
        usable = [word for word in pool if word not in parts]
        in_turn = len(pools) == 1 and len(usable) <= CONTROLS
        place = number % len(usable) if in_turn else int(rng.integers(len(usable)))
        chosen.append(usable[place])
    return " ".join(chosen)
