"""What may be typed after `peftguard trigger`."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from peftguard.cli.app import app
from peftguard.cli.default_command import DefaultCommand
from peftguard.cli.duration import seconds_of


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("60", 60), ("60s", 60), ("2m", 120), (" 1.5M ", 90), ("2h", 7200), ("0.5 s", 0.5)],
)
def test_durations(given: str, seconds: float) -> None:
    assert seconds_of(given, "--budget") == seconds


@pytest.mark.parametrize(
    "given", ["", "s", "0", "0m", "-1", "1e9", "nan", "inf", "3q", "1m30s", "٣", "9999999"]
)
def test_what_is_no_duration(given: str) -> None:
    with pytest.raises(typer.BadParameter, match="like 60, 60s or 2m"):
        seconds_of(given, "--budget")


def made() -> typer.Typer:
    group = typer.Typer(cls=DefaultCommand, no_args_is_help=True)

    @group.command()
    def run(name: str, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
        typer.echo(f"run {name} {loud}")

    @group.command()
    def replay(name: str) -> None:
        typer.echo(f"replay {name}")

    return group


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["folder"], "run folder False"),
        (["folder", "--loud"], "run folder True"),
        (["--loud", "folder"], "run folder True"),
        (["run", "folder"], "run folder False"),
        (["./replay"], "run ./replay False"),
        (["replay", "folder"], "replay folder"),
    ],
)
def test_an_unknown_first_word_is_an_argument(words: list[str], said: str) -> None:
    done = CliRunner().invoke(made(), words)
    assert (done.exit_code, done.output) == (0, f"{said}\n")


def test_help_is_that_of_the_group() -> None:
    for words in (["--help"], []):
        assert "replay" in CliRunner().invoke(made(), words).output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trigger", "folder"], "--base"),
        (["trigger", "folder", "--base", "minilm", "--budget", "3q"], "--budget"),
        (["trigger", "folder", "--base", "minilm", "--seed", "-1"], "--seed"),
        (["trigger", "folder", "--base", "minilm", "--format", "pdf"], "--format"),
        (["trigger", "replay"], "REPORT"),
        (["explain", "folder"], "--base"),
    ],
)
def test_wrong_words(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert said.lower() in done.output.lower()
