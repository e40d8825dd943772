"""The command, as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from peftguard.adversary.registry import EVASIONS, TRAINING_TIME
from peftguard.detectors.bundle import save_bundle
from peftguard.detectors.trained import TrainedDetector
from peftguard.padbench.attacks import ATTACKS
from peftguard.padbench.manifest import read_manifest


def test_every_attack_is_listed(run: Any) -> None:
    done = run("attack", "list")
    assert done.returncode == 0
    for name, evasion in EVASIONS.items():
        assert f"{name} " in done.stdout
        assert evasion.about in done.stdout
    assert "needs data, detector" in done.stdout


def test_disguises_need_no_torch() -> None:
    code = (
        "import sys; import peftguard.adversary.campaign, peftguard.adversary.registry; "
        "print({'torch', 'sklearn', 'scipy', 'transformers'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_ways_of_training_are_attacks_of_plans() -> None:
    assert set(TRAINING_TIME) <= set(ATTACKS)


def test_attack(run: Any, toy: Path, tmp_path: Path, detectors: dict[str, TrainedDetector]) -> None:
    save_bundle(detectors["gram"], tmp_path / "gram")
    words = ("attack", "noise", toy, "--out", tmp_path / "out", "--detector", tmp_path / "gram")
    done = run(*words, "--limit", 2, "--strength", 0.1, "--strength", 1)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("noise 0.1: 2 adapters; whether they still fire was not measured")
    assert "toy-gram flags" in lines[0]
    assert len(read_manifest(tmp_path / "out")) == 4
    again = run(*words, "--limit", 2, "--strength", 0.1, "--strength", 1)
    assert again.stdout == done.stdout


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("nonsense", "."), "no attack 'nonsense'"),
        (("gauge", "nowhere"), "neither an adapter's folder nor a benchmark"),
        (("fgsm", "TOY"), "needs a detector"),
    ],
)
def test_wrong_usage(run: Any, toy: Path, words: tuple[str, ...], error: str) -> None:
    given = [str(toy) if word == "TOY" else word for word in words]
    done = run("attack", *given, "--out", "out")
    assert done.returncode == 2
    assert error in done.stderr
    assert "Traceback" not in done.stderr
