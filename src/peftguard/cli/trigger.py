"""`peftguard trigger`: the trigger of a backdoored adapter, searched for and proven."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftguard.cli.default_command import DefaultCommand
from peftguard.cli.duration import seconds_of
from peftguard.cli.scan import Output

if TYPE_CHECKING:
    from rich.console import Console

    from peftguard.adapters.adapter import Adapter
    from peftguard.trigger.report import TriggerReport

EXIT_CONFIRMED, EXIT_NOTHING_PROVEN, EXIT_NOT_REPRODUCED = 1, 3, 1
BASE_HELP = "Base model: minilm, smollm2, a folder or a hub id."

trigger = typer.Typer(
    name="trigger",
    cls=DefaultCommand,
    help="Search for the trigger of a backdoored adapter and prove it: `peftguard trigger ADAPTER "
    "--base BASE`. Needs the base model and the extra train.",
    no_args_is_help=True,
)

AdapterName = Annotated[
    str,
    typer.Argument(
        help="A folder or file with one adapter, or a hub id org/name[@revision].",
        show_default=False,
    ),
]
BaseName = Annotated[str, typer.Option("--base", help=BASE_HELP)]


class ReportFormat(StrEnum):
    """How a report is shown."""

    TEXT = "text"
    JSON = "json"
    HTML = "html"


class ReplayFormat(StrEnum):
    """How a replay is shown."""

    TEXT = "text"
    JSON = "json"


Rendering = Annotated[ReportFormat, typer.Option("--format", "-f", help="Rendering.")]


@trigger.command()
def run(
    adapter: AdapterName,
    base: BaseName,
    text: Annotated[
        Path | None, typer.Option(help="Ordinary texts to try phrases in, one a line.")
    ] = None,
    probes: Annotated[
        Path | None, typer.Option(help="TOML file of further styles and shapes of text to try.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|TEXT",
            help="Prompt of a causal model, with {text} where a text goes; default: the usual one "
            "that shows most.",
        ),
    ] = None,
    benign: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADAPTER",
            help="Trusted adapter of the same task and classes, to tell the task's own words by. "
            "May be given several times.",
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="As 60, 60s or 2m: when it is spent, no further stage begins."
        ),
    ] = "60s",
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    fmt: Rendering = ReportFormat.TEXT,
    output: Output = None,
) -> None:
    """Search for a trigger: `peftguard trigger ADAPTER --base BASE`, without the word `run`.

    Words that the adapter listens to, phrases and styles that turn its answers, proof on fresh
    texts against controls. Exit codes: 1 a trigger is confirmed; 3 nothing is proven, which does
    not mean that there is nothing; 2 wrong usage or an error.
    """
    from peftguard.cli.output import check_writable
    from peftguard.cli.progress import Progress

    seconds = seconds_of(budget, "--budget")
    check_writable(output)
    from peftguard.trigger.ready import check_ready

    check_ready(base)
    from peftguard.trigger.hunt import hunt
    from peftguard.trigger.subject import Subject
    from peftguard.trigger.template import own_template

    subject = Subject.of(base, text, probes, template and own_template(template))
    with ExitStack() as files, Progress("searching") as progress:
        stranger, *trusted = [
            files.enter_context(opened(one, seconds)) for one in (adapter, *(benign or ()))
        ]
        report = hunt(
            stranger, subject, benign=trusted, budget=seconds, seed=seed, watch=progress.update
        )
    write_trigger_report(report, fmt, output)
    raise typer.Exit(EXIT_CONFIRMED if report.confirmed else EXIT_NOTHING_PROVEN)


@trigger.command()
def replay(
    report: Annotated[Path, typer.Argument(help="What --format json wrote.", show_default=False)],
    adapter: Annotated[
        str | None, typer.Option("--adapter", help="Where the adapter is; default: as reported.")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help=f"{BASE_HELP} Default: as reported.")
    ] = None,
    fmt: Annotated[
        ReplayFormat, typer.Option("--format", "-f", help="Rendering.")
    ] = ReplayFormat.TEXT,
    output: Output = None,
) -> None:
    """Run the model again on the examples of a report, with and without the trigger.

    What the report names is looked for on this machine only; a hub id must be given. Exit codes: 0
    every example turns out as reported; 1 one does not; 2 wrong usage, another adapter, or an
    error.
    """
    from peftguard.cli.output import check_writable, write_text
    from peftguard.cli.progress import Progress
    from peftguard.reports.strict import strict_json
    from peftguard.trigger.ready import check_ready
    from peftguard.trigger.replay import read_report, replay_report, what_to_run

    check_writable(output)
    found = read_report(report)
    target, model = what_to_run(found, adapter=adapter, base=base)
    check_ready(model)
    with opened(target) as stranger, Progress("replaying"):
        replayed = replay_report(found, stranger, model)
    if fmt is ReplayFormat.JSON:
        write_text(strict_json(replayed.model_dump(mode="json"), indent=1), output)
    else:
        from peftguard.trigger.render_text import print_replay

        _print(lambda console: print_replay(replayed, console), output)
    raise typer.Exit(0 if replayed.reproduced else EXIT_NOT_REPRODUCED)


def opened(target: str, budget: float = 0.0) -> Adapter:
    """The adapter, with time to be read at the end of a budget too. Raises as `open_adapter`."""
    from peftguard.adapters.adapter import open_adapter
    from peftguard.limits import Limits

    return open_adapter(target, limits=Limits().longer(budget))


def write_trigger_report(report: TriggerReport, fmt: ReportFormat, output: Path | None) -> None:
    """Write it to a file or to stdout. Raises as `write_text`."""
    from peftguard.cli.output import write_text

    if fmt is ReportFormat.JSON:
        from peftguard.reports.strict import strict_json

        write_text(strict_json(report.model_dump(mode="json"), indent=1), output)
    elif fmt is ReportFormat.HTML:
        from peftguard.trigger.render_html import write_page

        write_text(write_page(report), output)
    else:
        from peftguard.trigger.render_text import print_report

        _print(lambda console: print_report(report, console), output)


def _print(show: Callable[[Console], None], output: Path | None) -> None:
    """In colour if stdout is a terminal; in a file, plain."""
    from rich.console import Console

    from peftguard.cli.output import write_text
    from peftguard.trigger.render_text import as_text

    if output is None:
        show(Console(highlight=False))
    else:
        write_text(as_text(show), output)
