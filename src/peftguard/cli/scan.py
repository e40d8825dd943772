"""`peftguard scan`: a verdict on every adapter that is named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftguard.findings import Severity
from peftguard.reports import Format
from peftguard.settings import limit_help, setting_help

Targets = Annotated[
    list[str],
    typer.Argument(
        help="Folders, files, trees of adapters, hub ids org/name[@revision], any number mixed.",
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file; default: peftguard.toml of this folder, if any."),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write the report here, not to stdout.")
]
Offline = Annotated[bool | None, typer.Option("--offline", help=setting_help("offline"))]
Initial = Annotated[
    Path | None, typer.Option("--initial-adapter", help=setting_help("initial_adapter"))
]
Timeout = Annotated[float | None, typer.Option("--timeout", help=limit_help("max_seconds"))]
Base = Annotated[
    str | None, typer.Option("--base", help=f"{setting_help('base')} Needs the extra train.")
]
Benign = Annotated[
    list[str] | None,
    typer.Option(metavar="ADAPTER", help=f"{setting_help('benign')} May be given several times."),
]
Budget = Annotated[
    str | None,
    typer.Option(metavar="TIME", help=f"{setting_help('budget')} As 60, 60s or 2m; default: 60s."),
]
MaxSize = Annotated[int | None, typer.Option("--max-size", help=limit_help("max_file_bytes"))]


def scan(
    targets: Targets,
    fmt: Annotated[Format, typer.Option("--format", "-f", help="Rendering.")] = Format.TEXT,
    output: Output = None,
    fpr: Annotated[float | None, typer.Option(help=setting_help("fpr"))] = None,
    detector: Annotated[list[str] | None, typer.Option(help=setting_help("detectors"))] = None,
    fail_on: Annotated[Severity | None, typer.Option(help=setting_help("fail_on"))] = None,
    strict: Annotated[bool | None, typer.Option("--strict", help=setting_help("strict"))] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", help=setting_help("jobs"))] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Scan unchanged adapters anew.")
    ] = False,
    base: Base = None,
    benign: Benign = None,
    budget: Budget = None,
    offline: Offline = None,
    initial_adapter: Initial = None,
    timeout: Timeout = None,
    max_size: MaxSize = None,
    config: ConfigFile = None,
) -> None:
    """Scan adapters and give a verdict on each.

    Exit codes: 0 all clean; 1 something suspicious or backdoored, or a finding at or above
    --fail-on; 2 wrong usage or an internal error; 3 nothing worse than unknown. No telemetry.
    """
    from peftguard.cli.duration import seconds_of
    from peftguard.cli.output import check_writable, write_report
    from peftguard.cli.progress import Progress
    from peftguard.settings import load_settings
    from peftguard.verdict.batch import scan_targets

    settings = load_settings(
        config,
        fpr=fpr,
        detectors=detector,
        fail_on=fail_on,
        strict=strict,
        jobs=jobs,
        cache=False if no_cache else None,
        base=base,
        benign=benign or None,
        budget=None if budget is None else seconds_of(budget, "--budget"),
        offline=offline,
        initial_adapter=initial_adapter,
        limits=given_limits(timeout, max_size),
    )
    check_writable(output)
    for option, given in (("--budget", budget), ("--benign", benign)):
        if given and settings.base is None:
            raise typer.BadParameter("there is no --base to search on", param_hint=option)
    with Progress("scanning") as progress:
        report = scan_targets(targets, settings, progress.update)
    write_report(report, fmt, output)
    raise typer.Exit(report.exit_code(fail_on=settings.fail_on, strict=settings.strict))


def given_limits(timeout: float | None, max_size: int | None) -> dict[str, float | int]:
    """The limits that were set on the command line."""
    given = {"max_seconds": timeout, "max_file_bytes": max_size}
    return {key: value for key, value in given.items() if value is not None}
