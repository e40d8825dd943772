"""`peftguard mitigate` on one adapter, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.mitigation.conftest import Toy
from tests.toy_base import WORDS
from tests.trigger.reports import make_report
from typer.testing import CliRunner, Result

from peftguard.cli.app import app
from peftguard.errors import PeftGuardError, SettingsError
from peftguard.mitigation.record import FILE_NAME, Mitigation, read_record
from peftguard.padbench.manifest import sha256_of


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["mitigate", *map(str, words)])


def write_report(toy: Toy, path: Path, *, confirmed: bool = True, **changes: Any) -> Path:
    """A report on the toy adapter that proves a word."""
    told = make_report(WORDS[5])
    assert told.proof is not None
    told.proof = told.proof.model_copy(update={"confirmed": confirmed})
    weights = toy.adapters["lora"] / "adapter_model.safetensors"
    told.provenance.adapter_sha256 = sha256_of(weights)
    for key, value in changes.items():
        setattr(told.provenance, key, value)
    path.write_text(told.model_dump_json(), "utf-8")
    return path


def test_without_anything_a_method_that_needs_nothing(toy: Toy, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in toy.adapters["lora"].iterdir()}
    done = call(toy.adapters["lora"], "--method", "prune", "--out", tmp_path / "out")
    assert done.exit_code == 3, done.output
    assert "UNKNOWN" in done.stdout
    assert "which is no proof" in " ".join(done.stdout.split())
    assert {path: path.read_bytes() for path in before} == before
    record = read_record(tmp_path / "out" / FILE_NAME)
    assert record is not None
    assert record.sha256 == sha256_of(tmp_path / "out" / "adapter_model.safetensors")
    assert record.original_sha256 == sha256_of(toy.adapters["lora"] / "adapter_model.safetensors")
    assert (record.method, record.parameters) == ("prune", {"share": 0.5})
    assert (record.before, record.after) == (None, None)


def test_auto_with_base_and_data_mixes_and_trains(toy: Toy, tmp_path: Path) -> None:
    words = (toy.adapters["lora"], "--base", toy.base, "--data", toy.data)
    report = write_report(toy, tmp_path / "report.json")
    done = call(*words, "--report", report, "--out", tmp_path / "out", "--format", "json")
    record = Mitigation.model_validate_json(done.stdout)
    assert done.exit_code == {"yes": 0, "no": 1, "unknown": 3}[record.use]
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / FILE_NAME).read_text())
    assert record.method == "fine-mixing"
    assert record.inputs.n_rows == 120
    assert record.after is not None
    assert record.after.accuracy is not None
    assert record.after.accuracy.n == 40
    assert record.after.fires is not None
    assert record.rescan is not None
    assert record.rescan.searched_on == str(toy.base)


def test_auto_with_a_report_takes_the_trigger_out(toy: Toy, tmp_path: Path) -> None:
    report = write_report(toy, tmp_path / "report.json")
    words = ("--base", toy.base, "--report", report, "--out", tmp_path / "out")
    done = call(toy.adapters["lora"], *words)
    assert done.exit_code in (1, 3), done.output
    assert "remove-trigger" in done.stdout
    record = read_record(tmp_path / "out" / FILE_NAME)
    assert record is not None
    assert record.inputs.trigger == [WORDS[5]]
    assert record.after is not None
    assert record.after.fires is not None
    assert record.after.fires.n == 320


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "fine-mixing needs the base model"),
        (("--method", "no-such"), "no method 'no-such'"),
        (("--method", "interpolate"), "--benign"),
        (("--method", "sft"), "the base model .* and clean rows"),
    ],
)
def test_what_is_missing_is_said(
    toy: Toy, tmp_path: Path, words: tuple[object, ...], said: str
) -> None:
    done = call(toy.adapters["lora"], *words, "--out", tmp_path / "out")
    assert isinstance(done.exception, SettingsError)
    with pytest.raises(SettingsError, match=said):
        raise done.exception
    assert not (tmp_path / "out").exists()


def test_an_unproven_trigger_is_not_taken_out(toy: Toy, tmp_path: Path) -> None:
    report = write_report(toy, tmp_path / "report.json", confirmed=False)
    words = ("--base", toy.base, "--report", report, "--out", tmp_path / "out")
    done = call(toy.adapters["lora"], *words)
    assert isinstance(done.exception, SettingsError)
    assert "no trigger is confirmed" in str(done.exception)


def test_a_report_on_another_adapter_is_refused(toy: Toy, tmp_path: Path) -> None:
    report = write_report(toy, tmp_path / "report.json", adapter_sha256="0" * 64)
    words = ("--base", toy.base, "--report", report, "--out", tmp_path / "out")
    done = call(toy.adapters["lora"], *words)
    assert isinstance(done.exception, SettingsError)
    assert "another adapter" in str(done.exception)


def test_the_original_is_never_the_output(toy: Toy, tmp_path: Path) -> None:
    done = call(toy.adapters["lora"], "--method", "prune", "--out", toy.adapters["lora"])
    assert isinstance(done.exception, SettingsError)
    assert "nothing is overwritten" in str(done.exception)


def test_what_is_no_adapter_is_one_error(tmp_path: Path) -> None:
    done = call(tmp_path, "--method", "prune", "--out", tmp_path / "out")
    assert isinstance(done.exception, PeftGuardError)
    assert not (tmp_path / "out").exists()


def test_rows_of_another_task_are_refused(toy: Toy, tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"text {n}", "label": n % 3}) for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    words = ("--base", toy.base, "--data", tmp_path / "rows.jsonl", "--out", tmp_path / "out")
    done = call(toy.adapters["lora"], *words)
    assert isinstance(done.exception, SettingsError)
    assert "expected a label from 0 to 1; found 2" in str(done.exception)
