"""`peftguard detectors`: what is installed to judge adapters with, and how good it is."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Rendering(StrEnum):
    """How a list is written."""

    TEXT = "text"
    JSON = "json"


def detectors(
    fmt: Annotated[Rendering, typer.Option("--format", "-f", help="Rendering.")] = Rendering.TEXT,
) -> None:
    """List trained detectors, shipped and installed, and the kinds that can be trained."""
    from peftguard.detectors.registry import detector_names, estimator_names, load_detectors

    names = detector_names()
    cards = [detector.card for detector in load_detectors(names)]
    if fmt is Rendering.JSON:
        import json

        listed = [card.model_dump() for card in cards]
        typer.echo(json.dumps({"detectors": listed, "kinds": estimator_names()}, indent=2))
        return
    for card in cards:
        typer.echo(f"{card.name}  {card.sha256[:12]}")
        typer.echo(f"  covers       {card.coverage}")
        typer.echo(f"  calibration  {card.n_calibration} benign adapters")
        typer.echo(
            f"  at 1 % FPR   flags {_share(card.true_positive_rate)} of firing backdoors, "
            f"{_share(card.false_positive_rate)} of benign adapters, measured in domain"
        )
    if not cards:
        typer.echo("no trained detector is installed, so weights alone give the verdict unknown")
    typer.echo(f"kinds for `peftguard train`: {', '.join(estimator_names())}")


def _share(rate: float | None) -> str:
    return "an unknown share" if rate is None else f"{100 * rate:.1f} %"
