"""`peftguard train`: a detector from a benchmark."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftguard.cli.evaluate import Base, Searched

if TYPE_CHECKING:
    from peftguard.detectors.trained import Protocol, Rate, TrainingCard


class Scheme(StrEnum):
    """Where calibration scores come from."""

    CROSS = "cross"
    SPLIT = "split"


def train(
    zoo: Annotated[
        Path, typer.Argument(help="Folder of a benchmark, with a manifest.", show_default=False)
    ],
    detector: Annotated[str, typer.Option("--detector", help="Kind of detector.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write; default: by its name, here."),
    ] = None,
    base: Base = None,
    searched: Searched = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    fpr: Annotated[
        float,
        typer.Option(min=1e-6, max=0.999, help="False-positive rate to report on, beside 1, 5 %."),
    ] = 0.01,
    calibration: Annotated[
        Scheme,
        typer.Option(
            help="cross: every adapter trains, p-values are approximate; "
            "split: a third is held out, p-values are exact."
        ),
    ] = Scheme.CROSS,
    decides: Annotated[
        bool,
        typer.Option("--decides", help="If shipped, decide alone for its base models."),
    ] = False,
) -> None:
    """Train, calibrate and measure a detector on a benchmark, and write it to a folder."""
    from peftguard.cli.progress import Progress
    from peftguard.detectors.bundle import load_bundle, save_bundle
    from peftguard.detectors.registry import estimator_named
    from peftguard.detectors.training import Options
    from peftguard.detectors.training import train as trained_on
    from peftguard.errors import SettingsError
    from peftguard.evaluation.searches import check_searched, read_searches, with_searches
    from peftguard.evaluation.zoo import read_zoo

    estimator_named(detector)  # a wrong name should not cost the time it takes to read a benchmark
    if output is not None and output.is_file():
        raise SettingsError(f"{output}: a file; expected a folder to write the detector to")
    searches = read_searches(searched) if searched else None
    with Progress("reading") as progress:
        benchmark = read_zoo(zoo, progress.update, base=base)
        benchmark = with_searches(benchmark, searches) if searches else benchmark
    check_searched(benchmark, [detector])
    searched_in = searched.name if searched else None
    options = Options(detector, seed, calibration.value, fpr, decides, base, searched_in)
    with Progress("training") as progress:
        trained = trained_on(benchmark, options, progress.update)
    folder = output or Path(trained.training.name)
    save_bundle(trained, folder)
    print_card(load_bundle(folder).training, trained.card.sha256, folder)


def print_card(card: TrainingCard, sha256: str, folder: Path) -> None:
    """The card for a reader."""
    zoo, metrics = card.zoo, card.metrics
    least = 1 / (1 + min(one.n for one in card.calibration))
    lines = [
        f"{card.name}: {folder}",
        f"  trained on   {zoo.name}: {zoo.n_benign} benign, {zoo.n_backdoored} backdoored "
        f"({zoo.n_duds} duds and {zoo.n_bereft} benign twins of duds left out)",
        f"  calibration  {card.protocol.calibration}, {_folds(card.protocol)} by "
        f"{card.protocol.groups}; least p-value {least:.3g}",
        f"  AUROC        {_shown(metrics.auroc)}",
    ]
    for at in card.metrics.at:
        lines.append(
            f"  at {100 * at.fpr:g} %".ljust(15)
            + f"flagged {_shown(at.true_positive_rate)} of backdoored, "
            f"{_shown(at.false_positive_rate)} of benign"
        )
    lines += [
        f"  covered      {_shown(metrics.covered_backdoored)} of backdoored, "
        f"{_shown(metrics.covered_benign)} of benign",
        f"  sha256       {sha256}",
    ]
    typer.echo("\n".join(lines))
    for at in metrics.at:
        if least > at.fpr:
            typer.echo(f"too few benign adapters to flag anything at {at.fpr:g}", err=True)


def _folds(protocol: Protocol) -> str:
    return "held out once" if protocol.folds == 1 else f"{protocol.folds} folds"


def _shown(rate: Rate | None) -> str:
    return "unknown" if rate is None else f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]"
