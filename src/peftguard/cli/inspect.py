"""`peftguard inspect`: what is in an adapter, without a verdict."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from peftguard.cli.scan import Initial, MaxSize, Offline, Output, Targets, Timeout, given_limits

if TYPE_CHECKING:
    from peftguard.results import Result


_NOT_READ = {"file.truncated", "file.malformed", "file.limit-reached", "file.duplicate-key"}
"""Findings that say that part of the adapter is missing from what is shown."""


class InspectFormat(StrEnum):
    """How an inspection is shown."""

    TEXT = "text"
    JSON = "json"


def inspect(
    targets: Targets,
    fmt: Annotated[
        InspectFormat, typer.Option("--format", "-f", help="Rendering.")
    ] = InspectFormat.TEXT,
    modules: Annotated[
        bool, typer.Option("--modules", help="List every module's spectrum.")
    ] = False,
    output: Output = None,
    offline: Offline = None,
    initial_adapter: Initial = None,
    timeout: Timeout = None,
    max_size: MaxSize = None,
) -> None:
    """Show method, rank, scaling, modules, sizes, base model and spectra. No verdict.

    Exit codes: 0 everything could be read; 2 something could not, or is not safe to load.
    """
    from peftguard.cli import EXIT_ERROR
    from peftguard.cli.output import check_writable, write_text
    from peftguard.cli.progress import Progress
    from peftguard.reports.inspection import inspection_json, print_inspection
    from peftguard.settings import load_settings
    from peftguard.verdict.batch import read_targets

    settings = load_settings(
        cache=False,
        offline=offline,
        initial_adapter=initial_adapter,
        limits=given_limits(timeout, max_size),
    )
    check_writable(output)
    with Progress("reading") as progress:
        results = read_targets(targets, settings, progress.update)
    if fmt is InspectFormat.JSON:
        write_text(inspection_json(results), output)
    else:
        print_inspection(results, output, every_module=modules)
    raise typer.Exit(EXIT_ERROR if any(_is_unread(result) for result in results) else 0)


def _is_unread(result: Result) -> bool:
    """True if nothing of the update could be read, or a file is not what it should be."""
    if result.adapter is None:
        return True
    codes = {finding.code for finding in result.findings}
    if result.adapter.n_modules and not result.modules and "method.unsupported" not in codes:
        return True
    return bool(codes & _NOT_READ)
