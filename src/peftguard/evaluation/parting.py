"""Which adapters train and which test: parts that share no data, and folds made of parts."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftguard.evaluation.zoo import Zoo
from peftguard.padbench.manifest import Row

LEAST_TRAIN = 5
"""Adapters of each class that a training set needs: cross-fitting parts them once more."""
LEAST_TEST = 2
_PARTS = 3
"""Parts of a benchmark that names no splits."""


class Unsupported(Exception):
    """A benchmark cannot answer a protocol's question; says why."""


@dataclass(frozen=True)
class Part:
    """One training set and the adapters scored by what it trains, duds among the latter.

    Args:
        train: places of the adapters to train on.
        test: places of those to score.
        bereft: of benign ones that are not scored, for their twins are duds.
    """

    train: tuple[int, ...]
    test: tuple[int, ...]
    bereft: tuple[int, ...] = ()


@dataclass(frozen=True)
class Split:
    """One fold of a protocol, before anything is trained.

    Args:
        name: unique in its protocol.
        parts: every adapter is tested in one of them at most.
        trained_on: the factor's only value in training; None: all but `tested_on`.
        tested_on: the factor's value that is tested.
        pooled: whether it counts where folds are pooled.
        take: labelled adapters that a seed draws; None: its usual share of all.
        wild: test adapters are no part of the benchmark, all of them benign.
        crossing: only for detectors that can score a base they were not trained on.
    """

    name: str
    parts: tuple[Part, ...]
    trained_on: str | None = None
    tested_on: str | None = None
    pooled: bool = True
    take: int | None = None
    wild: bool = False
    crossing: bool = False


def bases(zoo: Zoo) -> list[str]:
    """Base models of the benchmark, in order of appearance."""
    return list(dict.fromkeys(str(zoo.entries[i].value("base")) for i in zoo.members()))


def of_base(zoo: Zoo, base: str, split: str | None = None) -> list[int]:
    """Places of one base's adapters in one split, or in any."""
    return [i for i in zoo.members(split) if zoo.entries[i].value("base") == base]


def named(zoo: Zoo, base: str, value: str) -> str:
    """A fold's name: the base is told where there are several."""
    return f"{base}: {value}" if len(bases(zoo)) > 1 else value


def halves(zoo: Zoo, base: str | None = None, *, triggers: bool = False) -> list[Part]:
    """Training and test side of one base's adapters, or of all, duds on both sides.

    Where the manifest names splits, these are they. Else three stratified parts are tested in turn,
    and no training data, weights or split group (nor, if asked, trigger) is on both sides.
    """
    members = zoo.members() if base is None else of_base(zoo, base)
    if zoo.has_splits:
        sides = [[i for i in members if zoo.entries[i].row.split == s] for s in ("train", "test")]
        return [Part(tuple(sides[0]), tuple(sides[1]))]
    return turns(zoo, members, _PARTS, zoo.groups(triggers=triggers))


def turns(zoo: Zoo, members: Sequence[int], parts: int, groups: NDArray[np.int64]) -> list[Part]:
    """Stratified parts of `members`, each tested once by what the others train; groups stay whole.

    Raises:
        Unsupported: too few adapters or groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    places = np.asarray(members)
    strata = [f"{zoo.entries[i].row.label}/{zoo.entries[i].value('attack')}" for i in members]
    if len(set(groups[places].tolist())) < parts:
        raise Unsupported(f"its adapters share data: fewer than {parts} groups can be parted")
    folds = StratifiedGroupKFold(parts, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # A stratum smaller than the number of parts is spread as far as it goes.
        warnings.simplefilter("ignore", UserWarning)
        try:
            found = list(folds.split(places, strata, groups[places]))
        except ValueError as error:
            raise Unsupported(f"its adapters cannot be parted: {error}") from None
    return [Part(tuple(places[a].tolist()), tuple(places[b].tolist())) for a, b in found]


def kept(zoo: Zoo, parts: Iterable[Part]) -> tuple[Part, ...]:
    """Parts that can be measured: no duds in training, and no twins of duds on either side."""
    return tuple(part for part in (_even(zoo, one) for one in parts) if _measurable(zoo, part))


def some(splits: Iterable[Split], why: str) -> list[Split]:
    """Folds that have parts. Raises Unsupported, with the reason, where none has."""
    found = [split for split in splits if split.parts]
    if not found:
        raise Unsupported(
            f"{why}: no fold has {LEAST_TRAIN} benign and {LEAST_TRAIN} backdoored adapters to "
            f"train on and {LEAST_TEST} of each to test"
        )
    return found


def _even(zoo: Zoo, part: Part) -> Part:
    train = tuple(place for place in part.train if zoo.trains(place))
    test = tuple(place for place in part.test if not zoo.bereft(place))
    return Part(train, test, tuple(place for place in part.test if zoo.bereft(place)))


def _measurable(zoo: Zoo, part: Part) -> bool:
    counts = ((part.train, LEAST_TRAIN), (part.test, LEAST_TEST))
    return all(
        sum(zoo.entries[i].row.label == label for i in side) >= least
        for side, least in counts
        for label in ("benign", "backdoored")
    )


def is_control(row: Row, factor: str) -> bool:
    """True for a benign adapter that belongs to no value: it is the control of every one."""
    return row.label == "benign" and getattr(row, factor, None) is None
