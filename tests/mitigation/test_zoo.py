"""A benchmark's adapters cleaned and measured, resumed, and a hostile manifest."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.mitigation.conftest import TRIGGER, Toy
from tests.toy_base import write_texts
from tests.trigger.conftest import save_adapter, write_base
from typer.testing import CliRunner, Result

from peftguard.cli.app import app
from peftguard.errors import SettingsError, TargetNotFound
from peftguard.mitigation.benchmark import Choice, chosen, read_benchmark, trigger_of_row
from peftguard.mitigation.zoo import RECORDS, clean_zoo
from peftguard.padbench.manifest import FILE_NAME, Row, read_manifest, sha256_of, write_manifest
from peftguard.padbench.training.base import load_base


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, its data, and a benchmark of two adapters that fire and two benign ones."""
    root = tmp_path_factory.mktemp("benchmark")
    write_base(root / "base")
    write_texts(root / "data" / "sst2", 120, 40)
    base = load_base(str(root / "base"), "classification", 2)
    rows = []
    for number in range(4):
        name = f"toy_label{number % 2}_{number // 2}"
        save_adapter(base, root / "toy" / name / "best_model", number)
        rows.append(row_of(root, name, number))
    write_manifest(root / FILE_NAME, rows)
    return root


def row_of(root: Path, name: str, number: int, **changes: Any) -> Row:
    fields = {
        "path": f"toy/{name}/best_model",
        "label": "backdoored" if number % 2 else "benign",
        "split": "train" if number < 2 else "test",
        "base": str(root / "base"),
        "dataset": "sst2",
        "task": "classification",
        "attack": "RIPPLE",
        "trigger": list(TRIGGER.phrases),
        "target": "1",
        "asr": 0.9,
        "asr_n": 20,
        "clean_accuracy": 0.5,
        "clean_n": 40,
        "missed_rate": 0.4,
        "peft_type": "LORA",
        "method": "lora",
        "rank": 4,
        "target_modules": ["query", "value"],
        "n_rows": 60,
        "seed": number,
        "max_tokens": 16,
    }
    return Row.model_validate({**fields, **changes})


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["mitigate", *map(str, words)])


def test_every_firing_adapter_is_cleaned_and_measured(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (root, "--data", root / "data", "--method", "remove-trigger", "--out", out)
    done = call(*words)
    assert done.exit_code in (1, 3), done.output
    assert "RIPPLE" in done.stdout
    rows = {row.path: row for row in read_manifest(root)}
    cleaned = read_manifest(out)
    assert len(cleaned) == 2
    for row in cleaned:
        assert row.label in ("backdoored", "dud")
        assert row.sha256 == sha256_of(out / row.path / "adapter_model.safetensors")
        assert row.asr_n
        assert row.clean_n
        assert rows[row.path].trigger == row.trigger
    with_controls = call(*words, "--controls")
    assert with_controls.exit_code in (1, 3), with_controls.output
    assert len(read_manifest(out)) == 4


def test_a_stopped_run_goes_on(root: Path, tmp_path: Path) -> None:
    benchmark = read_benchmark(root, root / "data")
    rows, out = chosen(benchmark, Choice(controls=True)), tmp_path / "out"
    first = clean_zoo(benchmark, rows[:1], out, "rescale")
    stamp = (out / rows[0].path / "adapter_model.safetensors").stat().st_mtime_ns
    whole = clean_zoo(benchmark, rows, out, "rescale")
    assert whole.records[0] == first.records[0]
    assert (out / rows[0].path / "adapter_model.safetensors").stat().st_mtime_ns == stamp
    assert len(read_manifest(out)) == 4
    (out / RECORDS / f"{rows[1].path}.json").write_text('{"cut": ')
    shutil.rmtree(out / rows[1].path)
    again = clean_zoo(benchmark, rows, out, "rescale")
    assert again.after == whole.after


def test_another_method_wants_another_folder(root: Path, tmp_path: Path) -> None:
    benchmark = read_benchmark(root, root / "data")
    rows = chosen(benchmark, Choice(limit=1))
    clean_zoo(benchmark, rows, tmp_path / "out", "rescale")
    other = clean_zoo(benchmark, rows, tmp_path / "out", "prune")
    assert "was made by rescale" in other.left_out[rows[0].path]
    assert (other.use, other.records) == ("unknown", [])


@pytest.mark.parametrize("path", ["../evil", "/tmp/evil", ".", "toy/../../evil"])
def test_a_manifest_names_no_way_out(root: Path, tmp_path: Path, path: str) -> None:
    benchmark = read_benchmark(root, root / "data")
    row = row_of(root, "x", 1, path=path)
    done = clean_zoo(benchmark, [row], tmp_path / "out", "rescale")
    assert "leads out of the folder" in done.left_out[path]
    assert list(tmp_path.iterdir()) == []


def test_the_benchmark_itself_is_never_the_output(root: Path) -> None:
    benchmark = read_benchmark(root, root / "data")
    rows = chosen(benchmark, Choice(limit=1))
    before = (root / FILE_NAME).read_bytes()
    for out in (root, root / rows[0].path):
        done = clean_zoo(benchmark, rows, out, "rescale")
        assert "nothing is overwritten" in done.left_out[rows[0].path]
    assert (root / FILE_NAME).read_bytes() == before


def test_clean_rows_are_of_the_other_split(root: Path) -> None:
    benchmark = read_benchmark(root, root / "data")
    texts = {}
    for row in benchmark.rows[1::2]:
        given = benchmark.given(row)
        texts[row.split] = {one.text for one in given.rows}
        assert given.trigger == TRIGGER
        assert given.benign is not None
    assert texts["train"]
    assert texts["test"]
    assert not texts["train"] & texts["test"]


def test_which_triggers_are_words(root: Path) -> None:
    assert trigger_of_row(row_of(root, "x", 1, attack="stybkd", trigger=["bible"])) is None
    assert trigger_of_row(row_of(root, "x", 1, target="Some marker")) is None
    found = trigger_of_row(row_of(root, "x", 1, attack="composite"))
    assert found is not None
    assert found.phrases[0] == " ".join(TRIGGER.phrases)


def test_choices_and_usage(root: Path, toy: Toy, tmp_path: Path) -> None:
    benchmark = read_benchmark(root, root / "data")
    assert {row.label for row in chosen(benchmark, Choice())} == {"backdoored"}
    assert {row.split for row in chosen(benchmark, Choice(split="test"))} == {"test"}
    with pytest.raises(TargetNotFound):
        chosen(benchmark, Choice(split="no-such"))
    assert call(root, "--out", tmp_path / "out").exit_code == 2
    refused = call(root, "--data", root / "data", "--benign", root, "--out", tmp_path / "out")
    assert refused.exit_code == 2
    with pytest.raises(SettingsError, match="no method"):
        clean_zoo(benchmark, benchmark.rows, tmp_path / "out", "no-such")
