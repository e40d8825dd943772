"""Size of the update by layer, as a strip of characters: a cell a layer, a row a role."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from peftguard.features.profile import ModuleProfile
from peftguard.reports.layers import Stack, outlying, stacks
from peftguard.reports.visible import visible
from peftguard.results import Result

MAX_ROWS = 24
"""Most roles shown of one stack."""

_BARS = {False: "▁▂▃▄▅▆▇█", True: ".:-=+*#@"}
_COLOURS = ("#5b6ee1", "#4f8fd6", "#3fa7b5", "#3fae80", "#7fae3f", "#c7a11f", "#dd7b2a", "#e0453a")
_ABSENT, _ZERO, _UNDEFINED, _OUTLIER = " ", "0", "?", "^"


@dataclass(frozen=True, slots=True)
class _Cell:
    glyph: str
    style: str
    outlier: bool


def heat_strip(result: Result, width: int, *, ascii_only: bool = False) -> Iterator[Text]:
    """Lines of at most `width` columns; none where no module has a figure to show."""
    largest = max((_norm(module) or 0.0 for module in result.modules), default=0.0)
    if largest <= 0:
        return
    marked = outlying(result)
    yield _legend(largest, bool(marked), ascii_only)
    for stack in stacks(result.modules):
        rows = [
            [_cell(result.modules, at, marked, largest, ascii_only) for at in row]
            for row in _rows(stack)
        ]
        yield from _lines(stack, rows, width, ascii_only)


def _norm(module: ModuleProfile) -> float | None:
    norm = module.frobenius
    return norm if norm is not None and math.isfinite(norm) else None


def _rows(stack: Stack) -> Iterator[list[list[int]]]:
    for row in range(min(len(stack.roles), MAX_ROWS)):
        yield [stack.cells.get((row, column), []) for column in range(len(stack.layers))]


def _cell(
    modules: Sequence[ModuleProfile], at: list[int], marked: set[int], largest: float, plain: bool
) -> _Cell:
    """The largest of a cell's modules stands for it."""
    norms = [norm for position in at if (norm := _norm(modules[position])) is not None]
    outlier = not marked.isdisjoint(at)
    if not norms:
        return _Cell(_UNDEFINED if at else _ABSENT, "red" if at else "", outlier)
    share = max(norms) / largest
    if share <= 0.0:
        return _Cell(_ZERO, "dim", outlier)
    level = min(7, int(share * 8))
    return _Cell(_BARS[plain][level], _COLOURS[level], outlier)


def _legend(largest: float, marked: bool, plain: bool) -> Text:
    text = Text("Frobenius norm by layer: ")
    for glyph, colour in zip(_BARS[plain], _COLOURS, strict=True):
        text.append(glyph, colour)
    text.append(f" up to {largest:.3g}; {_ZERO} zero, {_UNDEFINED} undefined")
    if marked:
        text.append(f"; {_OUTLIER} outlier", "bold red")
    return text


def _lines(stack: Stack, rows: list[list[_Cell]], width: int, plain: bool) -> Iterator[Text]:
    roles = [visible(role, 28, ascii_only=plain) for role in stack.roles[: len(rows)]]
    title = visible(stack.name or "outside any layer", 28, ascii_only=plain)
    label = min(max(map(cell_len, [title, *roles])), max(8, width // 3))
    step = max(8, width - label - 1)
    for start in range(0, len(stack.layers), step):
        columns = range(start, min(start + step, len(stack.layers)))
        yield Text(f"{set_cell_size(title, label)} {_ruler(stack, columns)}".rstrip(), "dim")
        for role, row in zip(roles, rows, strict=True):
            yield from _row(set_cell_size(role, label), row, columns)
    if len(stack.roles) > MAX_ROWS:
        yield Text(f"and {len(stack.roles) - MAX_ROWS} more roles, see --format html", "dim")


def _row(name: str, row: list[_Cell], columns: range) -> Iterator[Text]:
    text = Text(f"{name} ")
    for column in columns:
        text.append(row[column].glyph, row[column].style)
    yield text
    marks = "".join(_OUTLIER if row[column].outlier else " " for column in columns).rstrip()
    if marks:
        yield Text(f"{'':<{cell_len(name)}} {marks}", "bold red")


def _ruler(stack: Stack, columns: range) -> str:
    """Layer numbers, each over its own cell, as many as fit."""
    text = ""
    for offset, column in enumerate(columns):
        number = visible(stack.layers[column], 8, ascii_only=True)
        if offset % 5 == 0 and len(text) <= offset and offset + len(number) <= len(columns):
            text = f"{text:<{offset}}{number}"
    return text
