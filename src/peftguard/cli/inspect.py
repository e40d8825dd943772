"""`peftguard inspect`: what is in an adapter, without a verdict."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from peftguard.cli.scan import Initial, MaxSize, Offline, Output, Targets, Timeout, given_limits


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

    Exit codes: 0 everything could be read; 2 something could not.
    """
    from peftguard.cli import EXIT_ERROR
    from peftguard.cli.output import write_text
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
    with Progress("reading") as progress:
        results = read_targets(targets, settings, progress.update)
    if fmt is InspectFormat.JSON:
        write_text(inspection_json(results), output)
    else:
        print_inspection(results, output, every_module=modules)
    raise typer.Exit(EXIT_ERROR if any(result.adapter is None for result in results) else 0)
