"""What is in an adapter, for `peftguard inspect`: the result of a scan less its verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from peftguard.adapters.filenames import printable
from peftguard.errors import SettingsError
from peftguard.features.profile import ModuleProfile
from peftguard.results import SCHEMA_VERSION, AdapterSummary, Result

if TYPE_CHECKING:
    from rich.console import Console

_FIGURES = ("sigma_1", "frobenius", "stable_rank", "effective_rank", "kurtosis")


def inspection_json(results: Sequence[Result]) -> str:
    """`{schema_version, adapters: [a scan's result without verdict and cache mark]}`."""
    adapters = [result.model_dump(mode="json", exclude={"verdict", "cached"}) for result in results]
    document = {"schema_version": SCHEMA_VERSION, "adapters": adapters}
    return json.dumps(document, indent=2, allow_nan=False)


def print_inspection(
    results: Sequence[Result], output: Path | None, *, every_module: bool = False
) -> None:
    """Tables of facts, roles (or every module) and findings, to a file or the terminal.

    Raises:
        SettingsError: the file cannot be written.
    """
    from rich.console import Console

    if output is None:
        _print(results, Console(highlight=False, markup=False), every_module=every_module)
        return
    try:
        with output.open("w", encoding="utf-8") as file:
            console = Console(file=file, width=120, highlight=False, markup=False)
            _print(results, console, every_module=every_module)
    except OSError as error:
        raise SettingsError(f"{output}: cannot be written: {error.strerror}") from None


def _print(results: Sequence[Result], console: Console, *, every_module: bool) -> None:
    for result in results:
        console.rule(printable(result.target), align="left")
        if result.adapter is not None:
            for name, value in _facts(result, result.adapter):
                console.print(f"{name:<14} {printable(value)}", soft_wrap=True)
        if result.modules:
            lines = _modules(result.modules) if every_module else _roles(result.modules)
            console.print("\n".join(lines), soft_wrap=True)
        for finding in result.findings:
            line = f"{finding.severity:<8} {finding.code}  {printable(finding.message)}"
            console.print(line, soft_wrap=True)


def _facts(result: Result, adapter: AdapterSummary) -> list[tuple[str, str]]:
    payload = (f"{p.kind}: {p.n_tensors} ({p.n_parameters:,})" for p in adapter.payload)
    facts = {
        "method": f"{adapter.peft_type} ({adapter.exactness} update)",
        "base model": adapter.base_model or "not named",
        "rank": "none" if adapter.rank is None else str(adapter.rank),
        "scale": ", ".join(f"{scale:g}" for scale in adapter.scale[:8]) or "none",
        "modules": f"{adapter.n_modules} ({', '.join(adapter.target_modules[:12])})",
        "parameters": f"{adapter.n_parameters:,} ({', '.join(adapter.dtypes)})",
        "payload": ", ".join(payload) or "none",
        "format": f"{adapter.format} names in {adapter.container}",
        "task": adapter.task_type or "not named",
        "written by": f"peft {adapter.peft_version}" if adapter.peft_version else "not named",
        "sha256": result.sha256 or "none",
    }
    return list(facts.items())


def _roles(profiles: Sequence[ModuleProfile]) -> list[str]:
    """Two lines a role: count, shape and rank, then the median of each figure with its range."""
    by_role: dict[tuple[str, tuple[int, int]], list[ModuleProfile]] = {}
    for profile in profiles:
        by_role.setdefault((profile.role, profile.shape), []).append(profile)
    lines = ["", "role: median of each figure (least to greatest)"]
    for (role, (out, into)), members in by_role.items():
        ranks = sorted({member.rank for member in members})
        rank = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        lines.append(f"{printable(role)}: {len(members)} of {out}x{into}, rank {rank}")
        spreads = (f"{figure} {_spread(members, figure)}" for figure in _FIGURES)
        lines.append(f"  {', '.join(spreads)}")
    return lines


def _modules(profiles: Sequence[ModuleProfile]) -> list[str]:
    """A line a module, never folded, so that it can be searched and cut into columns."""
    rows: list[tuple[str, ...]] = [("module", "shape", "rank", "scale", *_FIGURES)]
    for profile in profiles:
        figures = (getattr(profile, figure) for figure in _FIGURES)
        cells = ("-" if figure is None else f"{figure:.4g}" for figure in figures)
        shape = f"{profile.shape[0]}x{profile.shape[1]}"
        name, rank, scale = printable(profile.module), str(profile.rank), f"{profile.scale:g}"
        rows.append((name, shape, rank, scale, *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _spread(profiles: Sequence[ModuleProfile], figure: str) -> str:
    values = [value for p in profiles if (value := getattr(p, figure)) is not None]
    if not values:
        return "-"
    low, high = min(values), max(values)
    middle = f"{median(values):.3g}"
    return middle if low == high else f"{middle} ({low:.3g} to {high:.3g})"
