"""Which trusted adapters a search keeps beside it: `python benchmarks/trusted.py ZOO`.

Adapters of the train split, firing and benign ones of each data set, beside benign ones of the test
split of every data set with as many classes. SST-2 and IMDB are one task. A table of how many are
kept, with Clopper-Pearson intervals.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from peftguard.adapters.adapter import Adapter, open_adapter
from peftguard.cli.progress import Progress
from peftguard.errors import UnsupportedAdapter
from peftguard.features.weights import weights_of
from peftguard.padbench.manifest import Row, read_manifest
from peftguard.trigger.same_task import Task
from peftguard.trigger.screen import Screen
from peftguard.trigger.search import search
from peftguard.trigger.subject import Subject
from peftguard.trigger.words import Words
from trigger import share

ONE_TASK = {"sst2", "imdb"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--searched", type=int, default=4, help="of each data set and label")
    parser.add_argument("--trusted", type=int, default=4, help="of each data set")
    options = parser.parse_args()
    rows = [
        row
        for row in read_manifest(options.zoo)
        if row.base == options.base and row.task == "classification" and row.label != "dud"
    ]
    mine = drawn(rows, "train", ("benign", "backdoored"), options.searched)
    others = drawn(rows, "test", ("benign",), options.trusted)
    subject, kept = Subject.of(options.base), dict[str, list[bool]]()
    with Progress("comparing") as progress:
        for number, row in enumerate(mine):
            progress.update(number, len(mine), row.path)
            for other, is_kept in beside(row, others, options.zoo, subject):
                kept.setdefault(kind(row, other), []).append(is_kept)
    for name, happened in sorted(kept.items()):
        print(f"{name}: kept {share(happened)}")


def drawn(rows: Sequence[Row], split: str, labels: Sequence[str], count: int) -> list[Row]:
    """So many of each data set and label, the same every time."""
    rng, found = np.random.default_rng(0), []
    for dataset in sorted({str(row.dataset) for row in rows}):
        for label in labels:
            own = [r for r in rows if (r.dataset, r.label, r.split) == (dataset, label, split)]
            found += [own[place] for place in rng.permutation(len(own))[:count]]
    return found


def beside(
    row: Row, others: Sequence[Row], zoo: Path, subject: Subject
) -> Iterator[tuple[Row, bool]]:
    """Each other one that can be compared at all, and whether it is taken to be of the task."""
    with ExitStack() as files:
        adapter, *benign = [
            files.enter_context(open_adapter(zoo / one.path)) for one in (row, *others)
        ]
        task = searched(adapter, subject)
        for other, trusted in zip(others, benign, strict=True):
            try:
                there = subject.like(trusted, task.effects.model)
            except UnsupportedAdapter:  # of another number of classes: refused before
                continue
            yield other, task.is_of(there)


def searched(adapter: Adapter, subject: Subject) -> Task:
    """Its task, by the words that a search finds for each class."""
    effects = subject.effects(subject.adapted(adapter))
    words = Words.of(weights_of(adapter), subject.vocabulary, subject.vectors)
    if effects.model.asked is not None:
        words = Screen(effects, words).by_effect()
    return Task(effects, search(effects, words).pulls)


def kind(row: Row, other: Row) -> str:
    """How near the tasks of two adapters are."""
    if row.dataset == other.dataset:
        return "same data set"
    return "same task" if {row.dataset, other.dataset} == ONE_TASK else "another task"


if __name__ == "__main__":
    main()
