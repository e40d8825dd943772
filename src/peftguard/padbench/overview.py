"""What a plan will build, before anything is trained: cells, counts, size, time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from peftguard.padbench.bases import UNTRAINABLE, base_named
from peftguard.padbench.plan import Cell, Plan, size_of

if TYPE_CHECKING:
    from rich.table import Table

FLOPS = {"cpu": 2.0e11, "H100": 3.0e14}
"""Operations a second in bf16 that estimates assume: two cores with AVX-512, one GPU."""
_FORWARD_AND_BACK = 4
"""Operations a parameter and token: 2 forward, 2 back to the activations; weights are frozen."""


def seconds_of(cell: Cell, device: str = "cpu") -> float:
    """Estimated training time of one adapter at its mean number of steps and full length."""
    draws = cell.draws
    steps = sum(draws.steps) / 2
    batch_size = sum(draws.batch_size) / len(draws.batch_size)
    tokens = steps * batch_size * draws.max_tokens
    base = base_named(cell.base)
    # Layers below the first adapted one are computed once a row, and nothing goes back there.
    share = 1 - min(cell.layers or (0,)) / base.n_layers
    return _FORWARD_AND_BACK * base.linear_parameters * share * tokens / FLOPS[device]


def recipe_lines(plan: Plan) -> Iterator[str]:
    """Every recipe as one line of JSON."""
    for recipe in plan.recipes():
        yield recipe.model_dump_json()


def print_overview(plan: Plan) -> None:
    """Each grid with a row a base, dataset and attack, then the totals, to the terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    for grid in plan.grid:
        methods = ", ".join(method.value for method in grid.methods)
        ranks = ", ".join(map(str, grid.ranks))
        axes = f"methods {methods} x ranks {ranks} x targets {', '.join(grid.targets)}"
        console.print(f"\n{axes}: {grid.benign} benign + {grid.backdoored} poisoned a cell")
        console.print(_grid_table(list(plan.grid_cells(grid))))
    for name in dict.fromkeys(cell.base for cell in plan.cells()):
        if (reason := UNTRAINABLE.get(base_named(name).family)) is not None:
            console.print(f"\n{name} cannot be built: {reason}", soft_wrap=True)
    console.print(f"\n{totals_line(plan)}", soft_wrap=True)


def _grid_table(cells: list[Cell]) -> Table:
    from rich.table import Table

    groups: dict[tuple[str, str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.base, cell.dataset, cell.attack].append(cell)
    table = Table("base", "dataset", "attack", "cells", "benign", "poisoned", "size", box=None)
    for key, members in groups.items():
        benign, poisoned = sum(c.benign for c in members), sum(c.backdoored for c in members)
        n_bytes = sum((c.benign + c.backdoored) * size_of(c) for c in members)
        numbers = (len(members), benign, poisoned)
        table.add_row(*key, *map(str, numbers), _size(n_bytes))
    return table


def totals_line(plan: Plan) -> str:
    """Adapters, bytes and estimated time in one line."""
    cells = list(plan.cells())
    sizes = [cell.benign + cell.backdoored for cell in cells]
    n_bytes = sum(n * size_of(cell) for n, cell in zip(sizes, cells, strict=True))
    times = {
        device: sum(n * seconds_of(cell, device) for n, cell in zip(sizes, cells, strict=True))
        for device in FLOPS
    }
    spans = ", ".join(f"about {_span(seconds)} on {device}" for device, seconds in times.items())
    rates = " and ".join(f"{rate:.0e}" for rate in FLOPS.values())
    counts = f"{sum(sizes):,} adapters in {len(cells):,} cells, {_size(n_bytes)}"
    return f"{counts}, {spans} (training alone, assuming {rates} operations a second)"


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:,.0f} days"
