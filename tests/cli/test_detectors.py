"""`train`, `detectors`, and `scan` with what was trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.toys import toy_row, toy_weights, toy_zoo, write_adapter, write_toy

from peftguard.detectors.bundle import load_bundle, save_bundle
from peftguard.detectors.training import Options, train

Run = Any
"""The fixture `run`: a call gives a `subprocess.CompletedProcess[str]`."""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("zoos") / "toy", toy_zoo(120, 30, n_duds=2))


def test_from_a_benchmark_to_verdicts(run: Run, zoo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    done = run("train", zoo, "--detector", "gram", "-o", folder)
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        "120 benign, 30 backdoored (2 duds and 0 benign twins of duds left out)",
        "AUROC",
        "at 1 %",
        "covered",
    ):
        assert words in done.stdout
    digest = load_bundle(folder).card.sha256
    assert digest in done.stdout
    good = write_adapter(tmp_path / "good", toy_weights(toy_row(0, "benign"), 91))
    bad = write_adapter(tmp_path / "bad", toy_weights(toy_row(0, "backdoored"), 92))
    other = write_adapter(tmp_path / "other", toy_weights(toy_row(0, "benign"), 93, "org/other"))
    words = ("scan", good, bad, other, "--detector", folder, "--format", "json")
    for jobs in (1, 2):
        report = json.loads(run(*words, "--no-cache", "--jobs", jobs).stdout)
        verdicts = [result["verdict"] for result in report["results"]]
        labels = [verdict["label"] for verdict in verdicts]
        # This one finds too few of its backdoors to clear an adapter.
        assert labels == ["unknown", "suspicious", "unknown"], verdicts
        assert "too few to clear" in verdicts[0]["reasons"][0]
        assert verdicts[1]["detector"]["sha256"] == digest
        assert verdicts[0]["p_value"] > 0.01
        assert "org/other" in verdicts[2]["reasons"][0]


def test_where_it_goes_and_that_it_can_be_made_again(run: Run, zoo: Path, tmp_path: Path) -> None:
    words = ("train", zoo, "--detector", "spectral", "--calibration", "split", "--fpr", "0.1")
    assert run(*words).returncode == 0
    assert run(*words, "--output", tmp_path / "again").returncode == 0
    made = tmp_path / "working-folder" / "toy-spectral"
    for name in ("detector.json", "detector.safetensors"):
        assert (made / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_too_few_adapters_for_a_rate_are_told(run: Run, zoo: Path) -> None:
    done = run("train", zoo, "--detector", "spectral", "--fpr", "0.001")
    assert done.returncode == 0
    assert done.stderr == "too few benign adapters to flag anything at 0.001\n"


SCAN = """
import sys, peftguard
verdict = peftguard.scan(sys.argv[1], detectors=[sys.argv[2]], cache=False).results[0].verdict
print(verdict.label, verdict.p_value is not None, *{"sklearn", "scipy", "torch"} & set(sys.modules))
"""


@pytest.mark.parametrize("kind", ["gram", "linear", "spectral", "anomaly"])
def test_scoring_takes_numpy_alone(kind: str, zoo: Path, tmp_path: Path) -> None:
    save_bundle(train(toy_zoo(120, 30), Options(kind)), tmp_path / kind)
    words = [sys.executable, "-c", SCAN, str(zoo / "a0000"), str(tmp_path / kind)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split()[1:] == ["True"], done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--detector", "gramm"), "did you mean 'gram'"),
        (("--detector", "gram", "--fpr", "2"), "--fpr"),
        (("--detector", "gram", "--seed", "-1"), "--seed"),
        (("--detector", "gram", "-o", __file__), "a file; expected a folder"),
        (("--detector", "trigger", "--searched", "none.json"), "none.json: cannot be read"),
        ((), "--detector"),
    ],
)
def test_wrong_words_are_one_error(run: Run, zoo: Path, words: tuple[str, ...], said: str) -> None:
    done = run("train", zoo, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_no_benchmark_is_one_error(run: Run, tmp_path: Path) -> None:
    done = run("train", tmp_path, "--detector", "gram")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no manifest" in done.stderr


def test_a_folder_that_is_no_detector_is_one_error(run: Run, zoo: Path) -> None:
    done = run("scan", zoo / "a0000", "--detector", zoo)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "toy/detector.json" in done.stderr


def test_detectors_are_listed(run: Run) -> None:
    text = run("detectors")
    assert text.returncode == 0
    assert "kinds for `peftguard train`: anomaly, ensemble, ensemble-trigger, gram" in text.stdout
    listed = json.loads(run("detectors", "--format", "json").stdout)
    assert set(listed) == {"detectors", "kinds"}
    assert {"gram", "peftguard"} <= set(listed["kinds"])
