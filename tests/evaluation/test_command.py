"""`peftguard evaluate`, from the command line to the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peftguard.evaluation.page import write_page
from peftguard.evaluation.results import LEAK_TEST, Evaluation
from peftguard.evaluation.table import text_of

Run = Any
"""The fixture `run`: a call gives a `subprocess.CompletedProcess[str]`."""


def test_a_table(run: Run, written: Path) -> None:
    words = ["evaluate", written, "-p", "in_domain,unseen_task", "--seeds", 1]
    result = run(*words, "--detectors", "gram")
    assert result.returncode == 0, result.stderr
    assert "toy-zoo: 96 adapters, 48 benign, 48 backdoored, 0 duds" in result.stdout
    assert "skipped: no base has two values of task" in result.stdout
    assert "gram" in result.stdout


def test_json_and_the_page(run: Run, written: Path, tmp_path: Path) -> None:
    words = ["evaluate", written, "--protocol", "unseen_rank", "--detectors", "gram", "--seeds", 1]
    result = run(*words, "--format", "json", "-o", tmp_path / "a.json")
    assert result.returncode == 0, result.stderr
    found = Evaluation.model_validate_json((tmp_path / "a.json").read_text())
    assert [one.detector for one in found.protocols[0].pooled] == ["gram", LEAK_TEST]
    assert found.command == (
        "peftguard evaluate toy-zoo --protocol unseen_rank --detectors gram --seeds 1 --fpr 0.01"
    )
    assert str(written.parent) not in found.model_dump_json()
    assert "Unseen rank" in write_page(found)
    assert "skipped" not in text_of(found)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--protocol", "often"], "no protocol 'often'"),
        (["--detectors", "grim"], "'grim'"),
        (["--detectors", "gram"], "no manifest"),
        (["--searched", "none.json"], "none.json: cannot be read"),
    ],
)
def test_mistakes_are_exit_2_and_one_line(run: Run, more: list[str], said: str) -> None:
    result = run("evaluate", "absent", *more)
    assert result.returncode == 2
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
