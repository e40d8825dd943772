"""Modules laid out as a person pictures the model: a column a layer, a row a role."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from peftguard.features.profile import ModuleProfile
from peftguard.results import Result

OUTLIER = "weights.outlier-module"

_TRAILING_INDEX = re.compile(r"^(?P<stack>.*?)\.?(?P<index>[0-9]+)$")
_INNER_INDEX = re.compile(r"(?<![^.])[0-9]+(?![^.])")


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers of one kind. `cells` maps (row, column) to positions in the list of modules.

    A cell has several modules where a role occurs repeatedly in a layer (experts, inner blocks):
    indices within a role are written `*`. Modules outside any layer form a stack without a name, of
    one column.
    """

    name: str
    roles: tuple[str, ...]
    layers: tuple[str, ...]
    cells: dict[tuple[int, int], list[int]]


def stacks(modules: Sequence[ModuleProfile]) -> list[Stack]:
    """The stacks in file order, rows in file order, layers in numeric order."""
    groups: dict[str, list[tuple[str, str, int]]] = {}
    for position, module in enumerate(modules):
        name, layer = _split(module.layer)
        role = _INNER_INDEX.sub("*", module.role)
        groups.setdefault(name, []).append((role, layer, position))
    return [_stack(name, entries) for name, entries in groups.items()]


def outlying(result: Result) -> set[int]:
    """Positions of the modules that a finding says stand apart from their peers."""
    named = {found.location.module for found in result.findings if found.code == OUTLIER}
    return {at for at, module in enumerate(result.modules) if module.module in named}


def _stack(name: str, entries: list[tuple[str, str, int]]) -> Stack:
    roles = list(dict.fromkeys(role for role, _, _ in entries))
    layers = sorted({layer for _, layer, _ in entries}, key=_numeric)
    row = {role: at for at, role in enumerate(roles)}
    column = {layer: at for at, layer in enumerate(layers)}
    cells: dict[tuple[int, int], list[int]] = {}
    for role, layer, position in entries:
        cells.setdefault((row[role], column[layer]), []).append(position)
    return Stack(name, tuple(roles), tuple(layers), cells)


def _split(layer: str | None) -> tuple[str, str]:
    match = _TRAILING_INDEX.match(layer or "")
    return (match["stack"], match["index"]) if match else (layer or "", "")


def _numeric(index: str) -> tuple[int, str]:
    """Orders digits by value without making an integer of a hostile length."""
    digits = index.lstrip("0")
    return len(digits), digits
