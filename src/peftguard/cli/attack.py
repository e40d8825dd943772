"""`peftguard attack`: adapters in disguise, and whether a detector still finds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftguard.cli.default_command import DefaultCommand

if TYPE_CHECKING:
    from peftguard.adversary.campaign import Attacked

attack = typer.Typer(
    name="attack",
    cls=DefaultCommand,
    help="Disguise backdoored adapters to see whether detectors still find them: `peftguard attack "
    "NAME ADAPTER|ZOO --out DIR`. For testing detectors; see docs/threat-model.md.",
    no_args_is_help=True,
)


@attack.command()
def run(
    name: Annotated[str, typer.Argument(help="As `attack list` has it.", show_default=False)],
    target: Annotated[
        Path,
        typer.Argument(
            help="An adapter's folder, or a benchmark: a folder with a manifest.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for attacked adapters, manifest, results.")],
    detector: Annotated[
        str | None,
        typer.Option(help="Who is to be deceived, and judges: a trained detector or its folder."),
    ] = None,
    strength: Annotated[
        list[float] | None,
        typer.Option("--strength", help="May be repeated; default: as `attack list` has it."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with one folder a dataset: measure attack success and accuracy again."
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model in place of the one that the manifest names.")
    ] = None,
    twin: Annotated[
        Path | None, typer.Option(help="A benign adapter to merge with; default: each one's own.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Of a benchmark's adapters; default: backdoored."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of a benchmark's adapters.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many of a benchmark's, drawn at random.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Held-out rows of each kind.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
) -> None:
    """Attack one adapter or a benchmark: `peftguard attack NAME TARGET`, without the word `run`.

    The originals are not touched. Labels are given anew: without --data only exact symmetries keep
    theirs, everything else counts as not firing. Run it again to go on after a stop.
    """
    from importlib.util import find_spec

    from peftguard.adversary.campaign import Campaign
    from peftguard.adversary.measuring import Measuring
    from peftguard.adversary.registry import evasion_named
    from peftguard.adversary.target import check_target
    from peftguard.adversary.victims import as_built, drawn, find_victims
    from peftguard.cli.progress import Progress
    from peftguard.detectors.registry import load_detectors
    from peftguard.errors import MissingExtra

    if find_spec("scipy") is None:  # found out now, not after an hour
        raise MissingExtra("the figures of an attack", "detect")
    evasion = evasion_named(name)
    victims = find_victims(target, labels=label or ("backdoored",), split=split, twin=twin)
    victims = drawn(victims, limit, seed)
    judge = check_target(load_detectors([detector])[0]) if detector else None
    measuring = Measuring(data, as_built(victims.root, "test_share"), rows) if data else None
    campaign = Campaign(evasion, out, seed, judge, measuring, base)
    with Progress("attacking") as progress:
        lines, skipped = campaign.run(victims, strength or evasion.strengths, progress.update)
    for victim, reason in skipped.items():
        typer.echo(f"left out: {victim}: {reason}", err=True)
    print_lines(lines)


@attack.command("list")
def list_attacks() -> None:
    """Name every attack: what it does, what its strength is, what it needs."""
    from peftguard.adversary.registry import EVASIONS, TRAINING_TIME

    for evasion in EVASIONS.values():
        needs = f"; needs {', '.join(sorted(evasion.needs))}" if evasion.needs else ""
        kind = "exact symmetry; " if evasion.exact else ""
        values = ", ".join(f"{value:g}" for value in evasion.strengths)
        measure = "" if evasion.strength == "none" else f"; strength: {evasion.strength} ({values})"
        typer.echo(f"{evasion.name:10} {kind}{evasion.about}{measure}{needs}")
    typer.echo("\nWays of training, for plans of `peftguard padbench build`:")
    for name, about in TRAINING_TIME.items():
        typer.echo(f"{name:11} {about}")


def print_lines(lines: list[Attacked]) -> None:
    """One line a strength: how many, what became of them."""
    from peftguard.adversary.curve import curve, shown

    for point in curve(lines):
        typer.echo(shown(point))
