"""Where a report cannot be written is found out before the work is done."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from peftguard.cli.app import app
from peftguard.cli.output import check_writable
from peftguard.errors import SettingsError


def test_what_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    for output in (None, tmp_path / "new", tmp_path / "old", Path("/dev/null"), Path("new")):
        check_writable(output)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["", "none/report", "x" * 300])
def test_what_cannot(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be written"):
        check_writable(tmp_path / name)


@pytest.mark.parametrize(
    "words",
    [
        ["scan", "nothing"],
        ["inspect", "nothing"],
        ["explain", "nothing", "--base", "nothing"],
        ["trigger", "nothing", "--base", "nothing"],
        ["trigger", "replay", "nothing"],
    ],
)
def test_no_command_begins_before(words: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*words, "--output", str(tmp_path)])
    assert str(done.exception) == f"{tmp_path}: cannot be written: Is a directory"
