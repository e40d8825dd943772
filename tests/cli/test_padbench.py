"""The verbs of `peftguard padbench`: what they print, and their exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

Run = Any
"""The fixture `run`: a call gives a `subprocess.CompletedProcess[str]`."""


def test_plan_prints_the_grid_and_trains_nothing(run: Run) -> None:
    result = run("padbench", "plan", "paper")
    assert result.returncode == 0, result.stderr
    assert "13,300 adapters" in result.stdout
    assert "toxic_backdoors_hard" in result.stdout
    assert "flan_t5_xl cannot be built: an encoder-decoder" in result.stdout
    lines = run("padbench", "plan", "smoke", "--recipes").stdout.splitlines()
    assert {json.loads(line)["poisoned"] for line in lines} == {True, False}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "minni"], "no plan 'minni'; shipped: mini, paper, smoke"),
        (["verify", "absent"], "no manifest"),
        (["index", "absent"], "no adapters of the release"),
        (["card", "absent"], "no manifest"),
        (["build", "smoke", "root", "--data", "absent"], "no folder sst2"),
        (["build", "smoke", "root", "--members", "0"], "a number from 1, or auto"),
        (["build", "paper", "root", "--cpus", "2"], "base flan_t5_xl (google/flan-t5-xl) cannot"),
    ],
)
def test_mistakes_are_exit_2_and_one_line(run: Run, words: list[str], said: str) -> None:
    result = run("padbench", *words)
    assert result.returncode == 2
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_index_then_verify_a_release(run: Run, make_adapter: Any, tmp_path: Path) -> None:
    subset = "roberta_base_imdb_insertsent_rank16_qv"
    for label in (0, 1):
        folder = tmp_path / "release" / subset / f"{subset}_label{label}_0" / "best_model"
        shutil.copytree(make_adapter(f"a{label}", seed=label), folder)
    root = tmp_path / "release"
    assert run("padbench", "index", root).returncode == 0
    verified = run("padbench", "verify", root)
    assert (verified.returncode, verified.stdout) == (0, "2 adapters, 0 problems\n")
    weights = next(root.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    broken = run("padbench", "verify", root)
    assert broken.returncode == 1
    assert "2 adapters, 1 problem\n" in broken.stdout
