"""Twins: the benign and the poisoned adapter of one cell that bear the same number.

A benchmark trains so many adapters of each label in a cell, and every draw of the recipe is alike
for both. Take a poisoned one away, for it is a dud, and its cell has more benign adapters than
backdoored ones: what is common in such cells (a rank, a method) then tells benign from backdoored.
So the twin goes too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Sequence

from peftguard.padbench.manifest import Row

_NUMBERED = re.compile(r"(?P<before>.*)_label[01]_(?P<after>\d+(/.*)?)", re.DOTALL)
"""Folders as `padbench.recipe` and the public release name them: `<subset>_label{0|1}_{index}`."""
_CELL = ("split", "base", "dataset", "attack", "method", "rank")


def without_duds(rows: Sequence[Row]) -> list[Row]:
    """Rows but for duds and the benign twins of duds."""
    twins = twins_of(rows)
    return [
        row
        for place, row in enumerate(rows)
        if row.label != "dud" and not (place in twins and rows[twins[place]].label == "dud")
    ]


def twins_of(rows: Sequence[Row]) -> dict[int, int]:
    """Place of every adapter that has a twin, and the twin's; none where paths bear no number."""
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        named = _NUMBERED.fullmatch(row.path)
        if named is not None:
            cell = tuple(getattr(row, column) for column in _CELL)
            alike[named["before"], named["after"], *cell].append(place)
    pairs = [
        own
        for own in alike.values()
        if len(own) == 2 and sum(rows[place].label == "benign" for place in own) == 1
    ]
    return {one: other for a, b in pairs for one, other in ((a, b), (b, a))}
