"""The verbs, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from peftguard import __version__
from peftguard.cli.attack import attack
from peftguard.cli.detectors import detectors
from peftguard.cli.doctor import doctor
from peftguard.cli.evaluate import evaluate
from peftguard.cli.explain import explain
from peftguard.cli.inspect import inspect
from peftguard.cli.mitigate import mitigate
from peftguard.cli.padbench import padbench
from peftguard.cli.scan import scan
from peftguard.cli.schema import schema
from peftguard.cli.train import train
from peftguard.cli.trigger import trigger

app = typer.Typer(
    name="peftguard",
    help="Know whether a LoRA/PEFT adapter is backdoored before you load it. No telemetry.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (scan, inspect, doctor, schema, evaluate, train, detectors, explain, mitigate):
    app.command()(verb)
app.add_typer(trigger)
app.add_typer(padbench)
app.add_typer(attack)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"peftguard {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Know whether a LoRA/PEFT adapter is backdoored before you load it. No telemetry."""
