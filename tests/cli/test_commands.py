"""What a person or a script sees of each verb: output, errors, exit codes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import peftguard

Run = Any
"""The fixture `run`: a call gives a `subprocess.CompletedProcess[str]`."""

DETECTOR = """
import numpy as np
from peftguard.detectors.base import DetectorCard

class Constant:
    def __init__(self, p):
        self.p = p
        self.card = DetectorCard(
            name="constant", sha256="0" * 64, coverage="all", n_calibration=9999,
            true_positive_rate=0.9,
        )
    def uncovered(self, adapter):
        return None
    def decision_function(self, adapters):
        return np.zeros(len(adapters))
    def p_values(self, scores, adapters):
        return np.where(np.isinf(scores), 1e-4, self.p)
    def evidence(self, adapter):
        return ["it says so"]

def low(): return Constant(0.001)
def high(): return Constant(0.9)
"""


@pytest.fixture
def published(tmp_path: Path) -> Any:
    """A package that publishes the detector `name`, as third parties do."""

    def publish(name: str) -> Path:
        folder = tmp_path / f"site-{name}"
        info = folder / "constant-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / "constant_detector.py").write_text(DETECTOR)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: constant\nVersion: 1.0\n")
        entry = f"[peftguard.detectors]\n{name} = constant_detector:{name}\n"
        (info / "entry_points.txt").write_text(entry)
        return folder

    return publish


class Harmful:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/peftguard-was-here",)


def test_unknown_is_exit_3_and_strict_makes_it_1(run: Run, make_adapter: Any) -> None:
    folder = make_adapter()
    plain = run("scan", folder)
    assert (plain.returncode, plain.stderr) == (3, "")
    assert "unknown" in plain.stdout.lower()
    assert run("scan", folder, "--strict").returncode == 1


def test_clean_is_exit_0_and_flagged_1(run: Run, make_adapter: Any, published: Any) -> None:
    folder = make_adapter()
    clean = run("scan", folder, "--no-cache", path=published("high"))
    assert clean.returncode == 0, clean.stderr
    flagged = run("scan", folder, "--no-cache", "--format", "json", path=published("low"))
    assert flagged.returncode == 1
    verdict = json.loads(flagged.stdout)["results"][0]["verdict"]
    assert (verdict["label"], verdict["p_value"], verdict["fpr"]) == ("suspicious", 0.001, 0.01)
    assert verdict["detector"]["name"] == "constant"


def test_another_false_positive_rate(run: Run, make_adapter: Any, published: Any) -> None:
    folder = make_adapter()
    strict = run("scan", folder, "--no-cache", "--fpr", "0.0005", path=published("low"))
    assert strict.returncode == 0


def test_code_in_a_pickle_is_exit_1(run: Run, make_adapter: Any) -> None:
    folder = make_adapter()
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Harmful(), protocol=2))
    result = run("scan", folder, "--format", "json")
    assert result.returncode == 1
    (one,) = json.loads(result.stdout)["results"]
    assert one["verdict"]["label"] == "backdoored"
    assert one["findings"][0]["code"] == "file.executes-code"
    assert not Path("/tmp/peftguard-was-here").exists()


def test_fail_on_a_severity(run: Run, make_adapter: Any) -> None:
    folder = make_adapter(config={"r": 16})
    assert run("scan", folder).returncode == 3
    assert run("scan", folder, "--fail-on", "medium").returncode == 1


def test_json_follows_the_published_schema(run: Run, make_adapter: Any) -> None:
    folder = make_adapter()
    report = json.loads(run("scan", folder, folder / "absent", "--format", "json").stdout)
    jsonschema.validate(report, json.loads(run("schema").stdout))
    assert report["tool"] == {"name": "peftguard", "version": peftguard.__version__}
    first, second = report["results"]
    wanted = {"peft_type", "base_model", "rank", "target_modules", "n_modules", "n_parameters"}
    assert wanted | {"format"} <= first["adapter"].keys()
    assert {"label", "reasons", "score", "p_value", "fpr", "detector"} <= first["verdict"].keys()
    assert {"target", "sha256", "adapter", "verdict", "findings", "timing_s"} <= first.keys()
    assert {"code", "severity", "message", "location"} <= second["findings"][0].keys()
    assert (second["adapter"], second["verdict"]["label"]) == (None, "unknown")


@pytest.mark.parametrize("fmt", ["text", "json", "sarif", "html", "cyclonedx"])
def test_output_to_a_file(run: Run, make_adapter: Any, tmp_path: Path, fmt: str) -> None:
    if fmt == "cyclonedx":
        pytest.importorskip("cyclonedx")
    report = tmp_path / "report"
    result = run("scan", make_adapter(), "--format", fmt, "--output", report)
    assert (result.returncode, result.stdout) == (3, "")
    assert report.stat().st_size > 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scan"], "Missing argument"),
        (["scan", "x", "--formt", "json"], "No such option"),
        (["scan", "x", "--fpr", "2"], "fpr: input should be less than 1"),
        (["scan", "x", "--config", "absent.toml"], "absent.toml: no such settings file"),
        (["scan", "x", "--detector", "nope"], "no detector called 'nope'"),
        (["scan", ".", "--output", "/nowhere/at/all"], "/nowhere/at/all: cannot be written"),
        (["scam"], "No such command"),
    ],
)
def test_wrong_usage_is_exit_2_and_one_message(run: Run, words: list[str], said: str) -> None:
    result = run(*words)
    assert result.returncode == 2
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_inspect_agrees_with_the_file(run: Run, make_adapter: Any) -> None:
    folder = make_adapter(dtype=np.float16)
    text = run("inspect", folder)
    assert text.returncode == 0
    assert "LORA" in text.stdout
    assert "verdict" not in text.stdout.lower()
    (adapter,) = json.loads(run("inspect", folder, "--format", "json").stdout)["adapters"]
    assert adapter["adapter"]["dtypes"] == ["F16"]
    assert "verdict" not in adapter
    assert len(adapter["modules"]) == 6
    assert run("inspect", folder, "--modules").stdout.count("q_proj") >= 3


def test_inspect_of_nothing_is_exit_2(run: Run, tmp_path: Path) -> None:
    result = run("inspect", tmp_path / "absent")
    assert result.returncode == 2
    assert "file.not-found" in result.stdout


def test_inspect_of_what_cannot_be_read_is_exit_2(run: Run, make_adapter: Any) -> None:
    scaled = make_adapter(config={"lora_alpha": "8"})
    assert run("inspect", scaled).returncode == 2
    unsupported = make_adapter("ia3", config={"peft_type": "IA3"})
    assert run("inspect", unsupported).returncode == 0
    (unsupported / "optimizer.pt").write_bytes(pickle.dumps(Harmful(), protocol=2))
    beside = run("inspect", unsupported)  # reported, but the adapter itself could be read
    assert (beside.returncode, "file.code-beside" in beside.stdout) == (0, True)


def test_doctor_names_every_extra(run: Run) -> None:
    result = run("doctor")
    assert result.returncode == 0
    for word in ("torch", "gguf", "train", "cyclonedx", "detectors", "telemetry: none"):
        assert word in result.stdout


def test_version_and_help(run: Run) -> None:
    assert run("--version").stdout == f"peftguard {peftguard.__version__}\n"
    assert "No telemetry" in run("--help").stdout
    assert "Exit codes" in run("scan", "--help").stdout


def test_a_scan_imports_nothing_heavy(run: Run, make_adapter: Any, tmp_path: Path) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import runpy, sys\n"
        "try:\n"
        "    runpy.run_module('peftguard', run_name='__main__')\n"
        "finally:\n"
        "    heavy = 'torch scipy transformers peft gguf sklearn huggingface_hub'.split()\n"
        "    print([name for name in heavy if name in sys.modules], file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, str(probe), "scan", str(make_adapter())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 3
    assert result.stderr.strip() == "[]"
