"""The questions an evaluation asks, and the folds that answer each.

Training adapters come from the train split and test adapters from the test split wherever the
manifest names splits. Folds keep to one base model, unless crossing bases is the question. A benign
adapter stands in the cell of its backdoored twin, and goes where the cell goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from peftguard.evaluation.parting import (
    LEAST_TRAIN,
    Part,
    Split,
    Unsupported,
    bases,
    halves,
    is_control,
    kept,
    named,
    of_base,
    some,
    turns,
)
from peftguard.evaluation.zoo import Zoo

FEW = (20, 50, 100, 200, 400)
_TURNS = 5


@dataclass(frozen=True)
class Protocol:
    """A question: its name, what it asks in one sentence, and the folds that answer it.

    `splits` raises `Unsupported` where a benchmark cannot answer.
    """

    name: str
    title: str
    question: str
    splits: Callable[[Zoo], list[Split]]


def in_domain(zoo: Zoo) -> list[Split]:
    """One fold for each base and dataset: the train split against the test split."""
    found = []
    for base in bases(zoo):
        values = _values(zoo, of_base(zoo, base), "dataset")
        for dataset in values or (None,):
            parts = [
                Part(
                    _with(zoo, p.train, "dataset", dataset), _with(zoo, p.test, "dataset", dataset)
                )
                for p in halves(zoo, base)
            ]
            name = named(zoo, base, dataset or "all")
            found.append(Split(name, kept(zoo, parts)))
    return some(found, "domains are too small")


def seen_trigger(zoo: Zoo) -> list[Split]:
    """Turns within the train split; of backdoors, those whose trigger occurs in training."""
    groups = zoo.groups(split_groups=False)
    found = []
    for base in bases(zoo):
        members = of_base(zoo, base, "train" if zoo.has_splits else None)
        parts = [_shared(zoo, part) for part in turns(zoo, members, _TURNS, groups)]
        found.append(Split(named(zoo, base, "seen triggers"), kept(zoo, parts)))
    return some(found, "triggers are not shared")


def unseen_trigger(zoo: Zoo) -> list[Split]:
    """The train split against the test split, whose triggers are others."""
    if not any(entry.triggers() for entry in zoo.entries):
        raise Unsupported("the manifest names no triggers")
    found = []
    for base in bases(zoo):
        parts = halves(zoo, base, triggers=True)
        for part in parts:
            both = _triggers(zoo, part.train) & _triggers(zoo, part.test)
            if both:
                attack, trigger = min(both, key=str)
                raise Unsupported(f"{attack}: the trigger {trigger[:40]!r} is in both splits")
        found.append(Split(named(zoo, base, "unseen triggers"), kept(zoo, parts)))
    return some(found, "triggers cannot be parted")


def unseen(zoo: Zoo, factor: str) -> list[Split]:
    """Leave one value of a factor out, in turn."""
    found = []
    for base in bases(zoo):
        members = of_base(zoo, base)
        values = _values(zoo, members, factor)
        for value in values if len(values) > 1 else ():
            others = [other for other in values if other != value]
            parts = [
                Part(_with(zoo, part.train, factor, *others), _with(zoo, part.test, factor, value))
                for part in halves(zoo, base)
            ]
            found.append(Split(named(zoo, base, value), kept(zoo, parts), None, value))
    if not found:
        raise Unsupported(f"no base has two values of {factor}")
    return some(found, f"values of {factor} have too few adapters")


def unseen_attack(zoo: Zoo) -> list[Split]:
    """Leave one attack out, in turn; and train on one, test on each (not pooled)."""
    left_out = unseen(zoo, "attack")
    matrix = []
    for base in bases(zoo):
        values = _values(zoo, of_base(zoo, base), "attack")
        for one in values:
            for other in values:
                parts = [
                    Part(_with(zoo, p.train, "attack", one), _with(zoo, p.test, "attack", other))
                    for p in halves(zoo, base)
                ]
                name = named(zoo, base, f"{one} to {other}")
                matrix.append(Split(name, kept(zoo, parts), one, other, pooled=False))
    return left_out + [split for split in matrix if split.parts]


def unseen_base(zoo: Zoo) -> list[Split]:
    """Leave one base model out, in turn."""
    names = bases(zoo)
    if len(names) < 2:
        raise Unsupported("all its adapters have one base model")
    found = []
    for base in names:
        others = [other for other in names if other != base]
        parts = [
            Part(_with(zoo, part.train, "base", *others), _with(zoo, part.test, "base", base))
            for part in halves(zoo)
        ]
        found.append(Split(base, kept(zoo, parts), None, base, crossing=True))
    return some(found, "bases are too small")


def few_labels(zoo: Zoo) -> list[Split]:
    """The largest base, trained on ever more adapters."""
    found = []
    base = max(bases(zoo), key=lambda one: len(of_base(zoo, one)))
    parts = kept(zoo, halves(zoo, base))
    least = min((len(part.train) for part in parts), default=0)
    for count in FEW:
        if count <= least and _enough(zoo, parts, count):
            found.append(Split(f"{count} adapters", parts, str(count), pooled=False, take=count))
    return some(found, f"fewer than {FEW[0]} adapters to train on")


def wild(zoo: Zoo) -> list[Split]:
    """All training adapters of a base against adapters of strangers."""
    strangers = tuple(zoo.wild())
    if not strangers:
        raise Unsupported("no adapters of the wild: name a folder (--wild)")
    found = []
    for base in bases(zoo):
        train = of_base(zoo, base, "train" if zoo.has_splits else None)
        train = [i for i in train if zoo.trains(i)]
        positive = sum(zoo.entries[i].positive for i in train)
        if min(positive, len(train) - positive) >= LEAST_TRAIN:
            parts = (Part(tuple(train), strangers),)
            found.append(Split(base, parts, wild=True))
    return some(found, "bases are too small")


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "in_domain",
            "In domain",
            "Does it know new adapters of a base model and dataset it was trained on?",
            in_domain,
        ),
        Protocol(
            "seen_trigger",
            "Seen trigger",
            "Does it know a backdoor whose trigger it met in training?",
            seen_trigger,
        ),
        Protocol(
            "unseen_trigger",
            "Unseen trigger",
            "Does it know a backdoor of a known attack whose trigger it never met?",
            unseen_trigger,
        ),
        Protocol(
            "unseen_attack",
            "Unseen attack",
            "Does it know an attack that it never met, trained on all others, or on one?",
            unseen_attack,
        ),
        *(
            Protocol(
                f"unseen_{name}",
                f"Unseen {title}",
                f"Does it hold on a {title} that it never met, trained on all others?",
                partial(unseen, factor=name),
            )
            for name, title in (
                ("method", "PEFT method"),
                ("rank", "rank"),
                ("dataset", "dataset"),
                ("task", "task"),
            )
        ),
        Protocol(
            "unseen_base",
            "Unseen base",
            "Does it hold on a base model that it never met, trained on all others?",
            unseen_base,
        ),
        Protocol(
            "few_labels",
            "Few labels",
            "How many labelled adapters does it need?",
            few_labels,
        ),
        Protocol(
            "wild",
            "In the wild",
            "How many adapters of strangers, taken to be benign, does it flag?",
            wild,
        ),
    )
}


def _values(zoo: Zoo, members: Sequence[int], factor: str) -> list[str]:
    """Values of a factor, in order of appearance; numbers in their own order."""
    values = dict.fromkeys(zoo.entries[i].value(factor) for i in members)
    known = [value for value in values if value is not None]
    return sorted(known, key=int) if all(value.isdigit() for value in known) else known


def _with(zoo: Zoo, members: Sequence[int], factor: str, *values: str | None) -> tuple[int, ...]:
    """Members with one of the values, and the benign ones that are the control of all values."""
    return tuple(
        i
        for i in members
        if zoo.entries[i].value(factor) in values
        or (factor == "attack" and is_control(zoo.entries[i].row, factor))
    )


def _triggers(zoo: Zoo, members: Sequence[int]) -> set[tuple[str | None, str]]:
    return {trigger for i in members for trigger in zoo.entries[i].triggers()}


def _shared(zoo: Zoo, part: Part) -> Part:
    """The part without poisoned test adapters none of whose triggers is trained on, nor twins."""
    train = [i for i in part.train if zoo.entries[i].positive]
    known = _triggers(zoo, train)
    strange = {
        i
        for i in part.test
        if zoo.entries[i].row.label != "benign" and not zoo.entries[i].triggers() & known
    }
    strange |= {zoo.twins[i] for i in strange if i in zoo.twins}
    return Part(part.train, tuple(i for i in part.test if i not in strange))


def _enough(zoo: Zoo, parts: Sequence[Part], count: int) -> bool:
    """Whether a stratified draw of so many has enough of each class."""
    shares = [sum(zoo.entries[i].positive for i in p.train) / len(p.train) for p in parts]
    return all(min(share, 1 - share) * count >= LEAST_TRAIN - 0.5 for share in shares)
