"""`peftguard padbench`: plan, build, verify, index and describe benchmarks of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from peftguard.padbench.choices import Executor, Precision
from peftguard.padbench.options import Options
from peftguard.settings import setting_help

padbench = typer.Typer(
    name="padbench",
    help="Benchmarks of benign and backdoored adapters: plan, build, verify, index, card.",
    no_args_is_help=True,
)

PlanName = Annotated[
    str, typer.Argument(help="paper, mini, smoke, or a TOML file.", show_default=False)
]
Root = Annotated[Path, typer.Argument(help="Folder of the benchmark.", show_default=False)]


@padbench.command()
def plan(
    name: PlanName,
    recipes: Annotated[bool, typer.Option("--recipes", help="List every recipe as JSON.")] = False,
) -> None:
    """Print the grid before anything is trained: cells, counts, size, estimated time."""
    from peftguard.padbench.overview import print_overview, recipe_lines
    from peftguard.padbench.plan import load_plan

    declared = load_plan(name)
    if recipes:
        for line in recipe_lines(declared):
            typer.echo(line)
        return
    print_overview(declared)


@padbench.command()
def build(
    name: PlanName,
    root: Root,
    data: Annotated[Path | None, typer.Option(help=setting_help("data", Options))] = None,
    device: Annotated[str, typer.Option(help=setting_help("device", Options))] = "cpu",
    precision: Annotated[
        Precision, typer.Option(help=setting_help("precision", Options))
    ] = Precision.FP32,
    members: Annotated[str, typer.Option(help=setting_help("members", Options))] = "8",
    measured_rows: Annotated[
        int, typer.Option(min=1, help=setting_help("measured_rows", Options))
    ] = 400,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Processes of the local executor.")
    ] = 1,
    executor: Annotated[Executor, typer.Option(help="Where fleets run.")] = Executor.LOCAL,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster; `auto` finds this machine's.")
    ] = None,
    cpus: Annotated[float, typer.Option(min=0, help="Cores that a fleet takes on Ray.")] = 1,
) -> None:
    """Train, measure and label every adapter of a plan. Run it again to go on after a stop."""
    from peftguard.cli.progress import Progress
    from peftguard.padbench.build import build_plan
    from peftguard.padbench.executors import executor as executor_named
    from peftguard.padbench.manifest import Label
    from peftguard.padbench.plan import load_plan

    options = Options(
        data=data,
        device=device,
        precision=precision,
        members=_members(members),
        measured_rows=measured_rows,
    )
    run = executor_named(executor, processes=jobs, address=address, cpus=cpus)
    with Progress("building") as progress:
        rows = build_plan(load_plan(name), root, options, run, progress.update)
    counts = {label: sum(row.label == label for row in rows) for label in get_args(Label)}
    typer.echo(", ".join(f"{count} {label}" for label, count in counts.items()))


@padbench.command()
def verify(root: Root) -> None:
    """Check files, hashes, labels and splits against the manifest. Exit 1 if something is wrong."""
    from peftguard.cli.progress import Progress
    from peftguard.padbench.manifest import read_manifest
    from peftguard.padbench.verify import verify as problems_of

    rows = read_manifest(root)
    with Progress("verifying") as progress:
        problems = problems_of(root, rows, progress.update)
    for problem in problems:
        typer.echo(problem)
    typer.echo(_counted(len(rows), len(problems)))
    raise typer.Exit(1 if problems else 0)


@padbench.command()
def index(root: Root) -> None:
    """Write a manifest for a folder of the public release. Exit 1 if adapters were unreadable."""
    from peftguard.errors import SettingsError
    from peftguard.padbench.claim import PLAN
    from peftguard.padbench.index import index_release
    from peftguard.padbench.manifest import FILE_NAME, write_manifest

    if (root / PLAN).exists():
        raise SettingsError(f"{root}: built here, its manifest knows more than its names do")
    found = index_release(root)
    write_manifest(root / FILE_NAME, found.rows)
    for problem in found.problems:
        typer.echo(problem)
    typer.echo(_counted(len(found.rows), len(found.problems)))
    raise typer.Exit(1 if found.problems else 0)


@padbench.command()
def card(
    root: Root,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; default: the benchmark's.")
    ] = None,
) -> None:
    """Write a one-page data card with plots."""
    from peftguard.padbench.card import write_card

    typer.echo(str(write_card(root, output or root)))


def _members(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not (text.isdecimal() and int(text) > 0):
        raise typer.BadParameter("expected a number from 1, or auto", param_hint="--members")
    return int(text)


def _counted(adapters: int, problems: int) -> str:
    return f"{adapters} adapters, {problems} problem{'' if problems == 1 else 's'}"
