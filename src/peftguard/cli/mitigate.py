"""`peftguard mitigate`: an adapter cleaned, and whether the result may be used."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from peftguard.cli.duration import seconds_of
from peftguard.cli.trigger import BASE_HELP

if TYPE_CHECKING:
    from peftguard.mitigation.benchmark import Choice
    from peftguard.mitigation.cleaning import Order

EXIT_CODES = {"yes": 0, "no": 1, "unknown": 3}
EXIT_NOTHING_DONE = 2


class RecordFormat(StrEnum):
    """How what was done is shown."""

    TEXT = "text"
    JSON = "json"


def mitigate(
    target: Annotated[
        str,
        typer.Argument(
            help="A folder or file with one adapter, a hub id, or a benchmark: a folder with a "
            "manifest.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for what is cleaned; never the original's.")],
    method: Annotated[
        str, typer.Option(help="auto, or as docs/mitigation.md has it: fine-mixing, ...")
    ] = "auto",
    base: Annotated[str | None, typer.Option(help=BASE_HELP)] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Clean rows: a dataset's folder or a .jsonl file of text and label. For a "
            "benchmark: a folder with one folder a dataset."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="What `peftguard trigger --format json` wrote.")
    ] = None,
    benign: Annotated[Path | None, typer.Option(help="Folder of a trusted adapter.")] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="A benchmark's benign adapters as well.")
    ] = False,
    split: Annotated[str | None, typer.Option(help="Of a benchmark's adapters.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many of a benchmark's, drawn at random.")
    ] = None,
    budget: Annotated[
        str,
        typer.Option(metavar="TIME", help="As 60, 60s or 2m: of each search for a trigger."),
    ] = "60s",
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    fmt: Annotated[
        RecordFormat, typer.Option("--format", "-f", help="Rendering.")
    ] = RecordFormat.TEXT,
) -> None:
    """Clean an adapter, scan the result, and say whether it may be used.

    `auto` takes fine-mixing with --base and --data, with a benign adapter's weights if --benign is
    given; with --base alone it searches for a trigger and takes that out. Of a benchmark every
    adapter that fires is cleaned and measured anew; run it again to go on after a stop. Exit codes:
    0 it may be used; 1 it is still flagged, or its trigger still fires; 3 nothing is found any
    more, which is no proof; 2 wrong usage or an error.
    """
    from peftguard.mitigation.benchmark import Choice
    from peftguard.mitigation.cleaning import Order
    from peftguard.padbench.manifest import FILE_NAME

    order = Order(
        target, out, method, base, data, report, benign, seed, seconds_of(budget, "--budget")
    )
    if (Path(target) / FILE_NAME).is_file():
        _all(order, Choice(controls, split, limit), fmt)
    _one(order, fmt)


def _one(order: Order, fmt: RecordFormat) -> NoReturn:
    from peftguard.cli.progress import Progress
    from peftguard.mitigation.cleaning import clean
    from peftguard.mitigation.wording import told
    from peftguard.reports.strict import strict_json

    with Progress("mitigating") as progress:
        record = clean(order, progress.update)
    if fmt is RecordFormat.JSON:
        typer.echo(strict_json(record.model_dump(mode="json"), indent=1))
    else:
        typer.echo("\n".join(told(record)))
    raise typer.Exit(EXIT_CODES[record.use])


def _all(order: Order, choice: Choice, fmt: RecordFormat) -> NoReturn:
    from peftguard.cli.progress import Progress
    from peftguard.mitigation.benchmark import chosen, read_benchmark
    from peftguard.mitigation.wording import told_of_all
    from peftguard.mitigation.zoo import clean_zoo
    from peftguard.reports.strict import strict_json

    if order.data is None:
        raise typer.BadParameter("a benchmark is measured on its data", param_hint="--data")
    for option, value in (("--report", order.report), ("--benign", order.benign)):
        if value is not None:
            raise typer.BadParameter("a benchmark has its own for every adapter", param_hint=option)
    benchmark = read_benchmark(Path(order.adapter), order.data, order.base, order.seed)
    rows = chosen(benchmark, choice)
    with Progress("mitigating") as progress:
        cleaned = clean_zoo(benchmark, rows, order.out, order.method, progress.update)
    if fmt is RecordFormat.JSON:
        records = [record.model_dump(mode="json") for record in cleaned.records]
        typer.echo(strict_json({"records": records, "left_out": cleaned.left_out}, indent=1))
    else:
        typer.echo("\n".join(told_of_all(cleaned)))
    raise typer.Exit(EXIT_CODES[cleaned.use] if cleaned.records else EXIT_NOTHING_DONE)
