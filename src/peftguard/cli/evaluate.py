"""`peftguard evaluate`: how well detectors do on a benchmark."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftguard.cli.scan import Output
from peftguard.settings import setting_help

if TYPE_CHECKING:
    from peftguard.evaluation.results import Evaluation


Base = Annotated[
    str | None,
    typer.Option("--base", help="Only adapters of this base model, as the manifest names it."),
]


Searched = Annotated[
    Path | None,
    typer.Option(
        help="JSON of `peftguard scan ZOO --base BASE --format json`, for detectors that know "
        "searches for triggers.",
    ),
]


class EvaluationFormat(StrEnum):
    """How an evaluation is shown."""

    TEXT = "text"
    JSON = "json"
    HTML = "html"


def evaluate(
    zoo: Annotated[
        Path,
        typer.Argument(help="Folder with a manifest of labelled adapters.", show_default=False),
    ],
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol", "-p", help="May be repeated, or names with commas; default: all."
        ),
    ] = None,
    detectors: Annotated[
        str | None, typer.Option(help="Kinds to train, with commas; default: all that can be.")
    ] = None,
    base: Base = None,
    searched: Searched = None,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions of every fit.")] = 3,
    fpr: Annotated[float, typer.Option(min=1e-6, max=0.5, help=setting_help("fpr"))] = 0.01,
    wild: Annotated[
        Path | None, typer.Option(help="Folder of adapters taken to be benign, for `wild`.")
    ] = None,
    fmt: Annotated[
        EvaluationFormat, typer.Option("--format", "-f", help="Rendering.")
    ] = EvaluationFormat.TEXT,
    output: Output = None,
) -> None:
    """Train and test detectors on a benchmark, by protocols that cannot flatter them.

    A test of the training recipe alone runs beside them: its AUROC should be about .5. A file given
    with --output is written anew after every protocol.
    """
    from peftguard.cli.progress import Progress
    from peftguard.detectors.registry import estimator_named, estimator_names, needs_search
    from peftguard.evaluation.protocols import PROTOCOLS
    from peftguard.evaluation.run import check_names
    from peftguard.evaluation.run import evaluate as run
    from peftguard.evaluation.searches import check_searched, read_searches, with_searches
    from peftguard.evaluation.zoo import read_wild, read_zoo

    protocols = _names(protocol or []) or [name for name in PROTOCOLS if name != "wild" or wild]
    able = [kind for kind in estimator_names() if searched or not needs_search(kind)]
    kinds = _names([detectors or ""]) or able
    check_names(protocols)
    for kind in kinds:
        estimator_named(kind)
    searches = read_searches(searched) if searched else None
    with Progress("reading") as progress:
        read = read_zoo(zoo, progress.update, base=base)
        read = with_searches(read, searches) if searches else read
        check_searched(read, kinds)
        read = read_wild(read, wild, progress.update) if wild else read
    with Progress("evaluating") as progress:
        result = run(
            read,
            protocols,
            kinds,
            seeds=seeds,
            fpr=fpr,
            command=_command(read.name, protocols, kinds, base, searched, seeds, fpr, wild),
            watch=progress.update,
            save=(lambda so_far: _write(so_far, fmt, output)) if output else None,
        )
    if output is None:
        _write(result, fmt, None)


def _write(result: Evaluation, fmt: EvaluationFormat, output: Path | None) -> None:
    from peftguard.cli.output import write_text
    from peftguard.evaluation.table import print_evaluation, text_of

    if fmt is EvaluationFormat.TEXT and output is None:
        from rich.console import Console

        print_evaluation(result, Console(highlight=False))
    elif fmt is EvaluationFormat.TEXT:
        write_text(text_of(result), output)
    elif fmt is EvaluationFormat.JSON:
        write_text(result.model_dump_json(indent=1), output)
    else:
        from peftguard.evaluation.page import write_page

        write_text(write_page(result), output)


def _names(given: list[str]) -> list[str]:
    """Names between commas, each once."""
    names = (name.strip() for text in given for name in text.split(","))
    return list(dict.fromkeys(name for name in names if name))


def _command(
    zoo: str,
    protocols: list[str],
    kinds: list[str],
    base: str | None,
    searched: Path | None,
    seeds: int,
    fpr: float,
    wild: Path | None,
) -> str:
    """What gives the same figures, folders by their names alone."""
    import shlex

    words = ["peftguard", "evaluate", zoo]
    for name in protocols:
        words += ["--protocol", name]
    words += ["--base", base] if base else []
    words += ["--searched", searched.name] if searched else []
    words += ["--detectors", ",".join(kinds), "--seeds", str(seeds), "--fpr", f"{fpr:g}"]
    return shlex.join([*words, *(["--wild", wild.name] if wild else [])])
