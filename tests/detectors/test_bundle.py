"""Trained detectors on disk: the same bytes, the same scores, and nothing taken on trust."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.toys import BASE, MODULES, WIDTH, toy_row, toy_weights, toy_zoo, write_adapter

from peftguard.adapters.adapter import open_adapter
from peftguard.detectors.bundle import CARD, TENSORS, load_bundle, open_bundle, save_bundle
from peftguard.detectors.trained import TrainedDetector
from peftguard.detectors.training import Options, train
from peftguard.errors import InputError, PeftGuardError, SettingsError

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def trained() -> TrainedDetector:
    return train(toy_zoo(), Options("gram"))


@pytest.fixture
def bundle(trained: TrainedDetector, tmp_path: Path) -> Path:
    save_bundle(trained, tmp_path / "bundle")
    return tmp_path / "bundle"


def change_card(folder: Path, change: Change) -> None:
    card = json.loads((folder / CARD).read_text())
    change(card)
    (folder / CARD).write_text(json.dumps(card))


def change_tensors(folder: Path, change: Change) -> None:
    """With the card following, as somebody who means harm would do."""
    tensors = load_file(folder / TENSORS)
    change(tensors)
    save_file(tensors, folder / TENSORS)
    data = (folder / TENSORS).read_bytes()
    described = {"n_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    change_card(folder, lambda card: card.update(tensors=described))


def test_written_twice_it_is_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    save_bundle(train(toy_zoo(), Options("gram")), tmp_path / "again")
    save_bundle(load_bundle(bundle), tmp_path / "copy")
    for name in (CARD, TENSORS):
        assert (bundle / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert (bundle / name).read_bytes() == (tmp_path / "copy" / name).read_bytes()
    assert sorted(path.name for path in bundle.iterdir()) == [CARD, TENSORS]
    digest = hashlib.sha256((bundle / CARD).read_bytes()).hexdigest()
    assert load_bundle(bundle).card.sha256 == digest


@pytest.mark.parametrize("kind", ["gram", "spectral", "linear", "anomaly"])
def test_read_back_it_says_the_same(kind: str, tmp_path: Path) -> None:
    before = train(toy_zoo(), Options(kind))
    save_bundle(before, tmp_path / kind)
    after = load_bundle(tmp_path / kind)
    for seed, label in ((901, "benign"), (902, "backdoored")):
        folder = write_adapter(tmp_path / label, toy_weights(toy_row(0, label), seed))
        with open_adapter(folder) as adapter:
            assert before.uncovered(adapter) == after.uncovered(adapter)
            scores = before.decision_function([adapter])
            np.testing.assert_allclose(after.decision_function([adapter]), scores, rtol=1e-5)
            p_value = after.p_values(scores, [adapter])
            assert p_value == before.p_values(scores, [adapter])
            assert 1 / 61 <= float(p_value[0]) <= 1
    assert before.card == after.card


def test_what_lies_outside_needs_the_card_alone(bundle: Path, tmp_path: Path) -> None:
    (bundle / TENSORS).unlink()
    detector = open_bundle(bundle)
    other = toy_weights(toy_row(0, "benign"), 1, base="org/other")
    with open_adapter(write_adapter(tmp_path / "other", other)) as adapter:
        assert "org/other" in (detector.uncovered(adapter) or "")
    usual = toy_weights(toy_row(0, "benign"), 1)
    with (
        open_adapter(write_adapter(tmp_path / "usual", usual)) as adapter,
        pytest.raises(InputError, match=f"bundle/{re.escape(TENSORS)}"),
    ):
        detector.uncovered(adapter)


def test_an_adapter_that_cannot_be_read_is_uncovered(bundle: Path, tmp_path: Path) -> None:
    weights = toy_weights(toy_row(0, "benign"), 1)
    weights.modules[MODULES[0]].B[0, 0] = np.nan
    with open_adapter(write_adapter(tmp_path / "nan", weights)) as adapter:
        reason = load_bundle(bundle).uncovered(adapter)
    assert reason is not None
    assert "could not be read" in reason
    assert MODULES[0] in reason


def test_an_unwritable_folder_is_one_line(trained: TrainedDetector, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        save_bundle(trained, tmp_path / "file")


def break_at(*keys: str | int, to: object = None) -> Change:
    def change(card: Any) -> None:
        for key in keys[:-1]:
            card = card[key]
        card[keys[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (break_at("extra", to=1), "extra"),
        (break_at("format", to="peftguard-detector-9"), "format"),
        (break_at("name", to="../../etc"), "name"),
        (break_at("seed", to="many"), "seed"),
        (break_at("preprocessing", to="whitened"), "prepared in another way"),
        (break_at("tensors", "sha256", to="0" * 64), "not the file"),
        (break_at("tensors", "n_bytes", to=5), "not the file"),
        (break_at("coverage", "figure_limit", to=float("nan")), "figure_limit"),
        (break_at("coverage", "module_sets", to=[[99]]), "module_sets"),
        (break_at("coverage", "modules", 0, "n_out", to=0), "n_out"),
        (break_at("coverage", "n_known", to=7), "figures"),
        (break_at("coverage", "bases", to=[BASE, "org/other"]), "strata"),
        (break_at("calibration", 0, "n", to=3), "calibration.0"),
        (break_at("calibration", to=[]), "calibration"),
        (break_at("estimator", to="grom"), "did you mean 'gram'"),
        (break_at("estimator", to="os:system"), "no kind of detector"),
        (break_at("params", to={"command": "id"}), "no parameter 'command'"),
        (break_at("params", to={"memory": 3}), "memory is not stored"),
        (break_at("settings", to={}), "an entry is missing"),
        (break_at("settings", "sites", to=[[[]]]), "does not fit together"),
        (break_at("settings", "sites", to=7), "does not fit together"),
    ],
)
def test_a_card_that_lies_is_one_clear_error(bundle: Path, change: Change, said: str) -> None:
    change_card(bundle, change)
    with pytest.raises(InputError) as caught:
        load_bundle(bundle)
    assert str(caught.value).startswith("bundle")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def drop(key: str) -> Change:
    return lambda tensors: tensors.pop(key)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop("coverage.figures"), "figures"),
        (drop("estimator.0.A"), "0.A"),
        (drop("calibration.0"), "0"),
        (break_at("coverage.mean", to=np.zeros((2, 2), np.float32)), "mean"),
        (break_at("estimator.0.B", to=np.zeros((WIDTH, 77), np.float32)), "0.B"),
        (break_at("estimator.0.B", to=np.full((WIDTH, 2), np.nan, np.float32)), "NaN"),
        (break_at("calibration.0", to=np.full(60, np.inf)), "NaN or infinite"),
        (break_at("calibration.0", to=np.zeros(60, np.int64)), "calibration.0"),
        (break_at("calibration.7", to=np.zeros(3)), "2 arrays for 1 strata"),
        (break_at("stray", to=np.zeros(3)), "stray"),
    ],
)
def test_arrays_that_lie_are_one_clear_error(bundle: Path, change: Change, said: str) -> None:
    change_tensors(bundle, change)
    with pytest.raises(InputError) as caught:
        load_bundle(bundle)
    assert str(caught.value).startswith("bundle")
    assert said in str(caught.value)


@pytest.mark.parametrize("name", [CARD, TENSORS])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "folder", "pipe", "loop"])
def test_a_damaged_file_is_named(bundle: Path, name: str, damage: str) -> None:
    path = bundle / name
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "loop":
        path.symlink_to(path)
    elif damage != "missing":
        path.write_bytes(data[: len(data) // 2 if damage == "truncated" else 0])
    with pytest.raises(InputError, match=re.escape(f"bundle/{name}")):
        load_bundle(bundle)


def test_a_link_to_another_file_is_found_out_by_its_hash(bundle: Path, tmp_path: Path) -> None:
    (bundle / TENSORS).rename(tmp_path / "moved")
    (bundle / TENSORS).symlink_to(tmp_path / "moved")
    assert load_bundle(bundle).card.name == "toy-gram"
    data = bytearray((tmp_path / "moved").read_bytes())
    data[-1] ^= 1
    (tmp_path / "moved").write_bytes(data)
    with pytest.raises(InputError, match=r"not the file that detector\.json names"):
        load_bundle(bundle)


def test_a_huge_or_deep_card_is_not_parsed(bundle: Path) -> None:
    (bundle / CARD).write_text('{"a": "' + "x" * (17 << 20) + '"}')
    with pytest.raises(InputError, match="too large"):
        load_bundle(bundle)
    (bundle / CARD).write_text('{"a":' * 10_000)
    with pytest.raises(InputError, match="too deeply"):
        load_bundle(bundle)


def test_a_pickle_is_no_bundle(bundle: Path) -> None:
    (bundle / TENSORS).write_bytes(b"\x80\x04cos\nsystem\n(S'touch here'\ntR.")
    with pytest.raises(PeftGuardError, match="not the file"):
        load_bundle(bundle)
