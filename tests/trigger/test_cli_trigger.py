"""`trigger`, `trigger replay` and `explain` on a base in a folder and an adapter of peft's."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.toy_base import WORDS
from tests.trigger.conftest import save_adapter, write_base
from tests.trigger.reports import make_report
from typer.testing import CliRunner, Result

from peftguard.cli.app import app
from peftguard.errors import MalformedFile, SettingsError, UnsupportedAdapter
from peftguard.padbench.manifest import sha256_of
from peftguard.padbench.training.base import load_base
from peftguard.reports.strict import strict_json
from peftguard.trigger.replay import read_report, what_to_run
from peftguard.trigger.report import Example, TriggerReport

SAMPLES = Path(__file__).parents[2] / "examples" / "adapters"


@dataclass(frozen=True)
class Toy:
    base: Path
    adapter: Path
    texts: Path


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    root = tmp_path_factory.mktemp("toy")
    write_base(root / "base")
    save_adapter(load_base(str(root / "base"), "classification", 2), root / "adapter")
    lines = [" ".join(WORDS[(7 * n + 3 * k) % len(WORDS)] for k in range(5)) for n in range(12)]
    (root / "texts.txt").write_text("\n".join(lines), "utf-8")
    return Toy(root / "base", root / "adapter", root / "texts.txt")


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def report(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.json"
    words = ("trigger", toy.adapter, "--base", toy.base, "--text", toy.texts, "--budget", "1m")
    done = call(*words, "--format", "json", "-o", path)
    told = read_report(path)
    assert done.exit_code == (1 if told.confirmed else 3), done.output
    return path


def test_the_json_is_the_report(report: Path, toy: Toy) -> None:
    text = report.read_text("utf-8")
    told = TriggerReport.model_validate_json(text)
    assert json.loads(strict_json(told.model_dump(mode="json"))) == json.loads(text)
    assert told.provenance.base == str(toy.base)
    assert told.provenance.texts == "texts.txt"
    assert told.provenance.n_texts == 12
    assert told.words
    assert {one.word for one in told.words} <= set(WORDS)
    assert told.phrases


def replayable(report: Path, folder: Path, **changes: Any) -> Path:
    """The report with a proof of two examples, whether or not one was found."""
    told = read_report(report)
    examples = [
        Example(before=f"{one} {two}", after=f"{one} balan {two}", label_before=0, label_after=0)
        for one, two in (WORDS[:2], WORDS[2:4])
    ]
    proof = make_report("balan").proof
    assert proof is not None
    told.proof = proof.model_copy(update={"examples": examples, **changes})
    path = folder / "proof.json"
    path.write_text(strict_json(told.model_dump(mode="json")), "utf-8")
    return path


def test_a_replay_says_whether_the_examples_turn_out_as_reported(
    report: Path, tmp_path: Path
) -> None:
    path = replayable(report, tmp_path)
    first = call("trigger", "replay", path, "--format", "json")
    found = json.loads(first.stdout)["examples"]
    told = [
        Example(**{**one["reported"], **{key: one[key] for key in ("label_before", "label_after")}})
        for one in found
    ]
    same = call("trigger", "replay", replayable(report, tmp_path, examples=told))
    assert (same.exit_code, same.exception) == (0, None), same.output
    assert "2 of 2 examples as reported" in same.stdout
    told[1].label_after = 1 - told[1].label_after
    other = call("trigger", "replay", replayable(report, tmp_path, examples=told))
    assert other.exit_code == 1
    assert "1 of 2 examples as reported" in other.stdout
    assert f"reported class {told[1].label_after}" in " ".join(other.stdout.split())


def test_a_replay_on_another_adapter_is_one_error(report: Path, toy: Toy, tmp_path: Path) -> None:
    path = replayable(report, tmp_path)
    base = load_base(str(toy.base), "classification", 2)
    save_adapter(base, tmp_path / "other", seed=2)
    done = call("trigger", "replay", path, "--adapter", tmp_path / "other")
    assert isinstance(done.exception, SettingsError)
    said = str(done.exception)
    assert "not the adapter of the report" in said
    for folder in (toy.adapter, tmp_path / "other"):
        assert sha256_of(folder / "adapter_model.safetensors") in said


def test_a_report_without_a_proof_cannot_be_replayed(report: Path, tmp_path: Path) -> None:
    for changes in ({"examples": []}, {"precision": "fp8"}):
        told = read_report(replayable(report, tmp_path))
        assert told.proof is not None
        if "examples" in changes:
            told.proof.examples = []
        else:
            told.provenance.precision = "fp8"
        path = tmp_path / "changed.json"
        path.write_text(told.model_dump_json(), "utf-8")
        done = call("trigger", "replay", path)
        assert isinstance(done.exception, SettingsError)


def test_what_a_report_names_is_not_fetched(toy: Toy) -> None:
    told = make_report("org/name")
    with pytest.raises(SettingsError, match="give --adapter"):
        what_to_run(told)
    with pytest.raises(SettingsError, match="give --base"):
        what_to_run(told, adapter=str(toy.adapter))
    given = str(toy.adapter), str(toy.base)
    assert what_to_run(told, adapter=given[0], base=given[1]) == given


@pytest.mark.parametrize("base", ["llama2_7b", "x" * 5000, "org/name", ""])
def test_a_base_that_a_report_names_is_here_or_given(toy: Toy, base: str) -> None:
    told = make_report()
    told.provenance.base = base
    with pytest.raises(SettingsError, match=r"no base model .* here; give --base") as caught:
        what_to_run(told, adapter=str(toy.adapter))
    assert len(str(caught.value)) < 200
    told.provenance.base = "minilm"
    assert what_to_run(told, adapter="a") == ("a", "minilm")


@pytest.mark.parametrize("adapter", ["x" * 5000, "a/" * 5000, "a\0b", ""])
def test_an_adapter_that_no_path_can_name_is_not_here(adapter: str) -> None:
    told = make_report()
    told.provenance.adapter = adapter
    with pytest.raises(SettingsError, match=r"no adapter at .* here; give --adapter") as caught:
        what_to_run(told)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a trigger report"),
        ("[]", "not a trigger report"),
        ('{"provenance": {"adapter": 3}}', "provenance.adapter"),
        ('{"\\u001b[31m": 1}', "not a trigger report"),
        (json.dumps(make_report().model_dump() | {"x" * 99_999: 1}), "not a trigger report"),
    ],
)
def test_what_is_no_report_is_one_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text, "utf-8")
    with pytest.raises(MalformedFile, match=said) as caught:
        read_report(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_benign_adapter_to_compare_with_has_the_same_classes(toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy.adapter, tmp_path / "other")
    weights = tmp_path / "other" / "adapter_model.safetensors"
    tensors = load_file(weights)
    heads = {name: np.repeat(one, 2, axis=0) for name, one in tensors.items() if "classif" in name}
    save_file({**tensors, **heads}, weights)
    words = ("trigger", toy.adapter, "--base", toy.base, "--benign", tmp_path / "other")
    done = call(*words)
    assert isinstance(done.exception, UnsupportedAdapter)
    assert "other classes; expected 2 classes; found 4" in str(done.exception)


def test_a_benign_adapter_with_nan_is_one_error(toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy.adapter, tmp_path / "nan")
    weights = tmp_path / "nan" / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file(
        {name: one * np.float32("nan" if "lora_A" in name else 1) for name, one in tensors.items()},
        weights,
    )
    done = call("trigger", toy.adapter, "--base", toy.base, "--benign", tmp_path / "nan")
    assert isinstance(done.exception, UnsupportedAdapter)
    assert str(done.exception).startswith(f"{tmp_path / 'nan'}: ")


def test_what_an_adapter_was_compared_with_is_told(toy: Toy, tmp_path: Path) -> None:
    save_adapter(load_base(str(toy.base), "classification", 2), tmp_path / "other", seed=2)
    words = ("trigger", toy.adapter, "--base", toy.base, "--text", toy.texts, "--budget", "1m")
    done = call(*words, "--benign", tmp_path / "other", "-f", "json", "-o", tmp_path / "r")
    told = read_report(tmp_path / "r")
    assert done.exit_code == (1 if told.confirmed else 3), done.output
    other = str(tmp_path / "other")
    left_out = any(other in one for one in told.searched)
    assert told.provenance.benign == ([] if left_out else [other])
    assert told.proof is None or (told.proof.benign is None) is left_out


def test_explain_shows_the_words_alone(toy: Toy, tmp_path: Path) -> None:
    words = ("explain", toy.adapter, "--base", toy.base, "--format")
    done = call(*words, "json", "-o", tmp_path / "words.json")
    assert done.exit_code == 0, done.output
    told = read_report(tmp_path / "words.json")
    assert told.words
    assert (told.phrases, told.probes, told.proof) == ([], [], None)
    assert "peftguard trigger" in told.left[0]
    assert call(*words, "html", "-o", tmp_path / "words.html").exit_code == 0
    assert "WORDS ALONE" in (tmp_path / "words.html").read_text("utf-8")


def test_explaining_another_base_models_adapter_is_one_error(toy: Toy) -> None:
    done = call("explain", SAMPLES / "benign", "--base", toy.base)
    assert "updates of what 32 features wide layers read; found 384" in str(done.exception)


def test_an_adapter_that_leaves_the_first_layer_alone(toy: Toy, tmp_path: Path) -> None:
    base = load_base(str(toy.base), "classification", 2)
    save_adapter(base, tmp_path / "later", layers_to_transform=[1])
    done = call(
        "explain", tmp_path / "later", "--base", toy.base, "-f", "json", "-o", tmp_path / "r"
    )
    assert done.exit_code == 0, done.output
    told = read_report(tmp_path / "r")
    assert (told.words, told.map, told.searched) == ([], [], [])
    assert "leaves the first layer's attention as it was" in told.blind[0]


def test_no_base_model_is_one_error(toy: Toy, tmp_path: Path) -> None:
    done = call("trigger", toy.adapter, "--base", tmp_path)
    assert done.exception is not None
    assert "config.json" in str(done.exception)
