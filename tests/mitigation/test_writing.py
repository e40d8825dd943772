"""What is written peft loads; it answers as in memory; the original stays as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tests.mitigation.conftest import KINDS, Toy, in_peft
from tests.trigger.conftest import torch

from peftguard.adapters.adapter import open_adapter
from peftguard.errors import MalformedFile, PeftGuardError, SettingsError
from peftguard.mitigation.factored import read_factored
from peftguard.mitigation.method import Given
from peftguard.mitigation.record import Inputs
from peftguard.mitigation.registry import METHODS
from peftguard.mitigation.rescaling import Rescaling
from peftguard.mitigation.running import Running
from peftguard.mitigation.treatment import Treatment, treat
from peftguard.mitigation.writing import staged

ROWS = [[2, 7, 9, 3], [2, 30, 3], [2, 11, 12, 13, 14, 15, 3], [2, 40, 41, 3]]


def treated(folder: Path, out: Path, method: Any = None, given: Given | None = None) -> Treatment:
    out.mkdir()
    with open_adapter(folder) as original:
        return treat(original, method or Rescaling(), given or Given(), Inputs(), out)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def in_dtype(source: Path, folder: Path, dtype: torch.dtype) -> Path:
    """The same adapter, stored in another number type."""
    folder.mkdir()
    tensors = load_file(source / "adapter_model.safetensors")
    save_file({k: v.to(dtype) for k, v in tensors.items()}, folder / "adapter_model.safetensors")
    config = (source / "adapter_config.json").read_text()
    (folder / "adapter_config.json").write_text(config)
    return folder


@pytest.mark.parametrize("name", ["rescale", "prune", "interpolate", "remove-trigger"])
@pytest.mark.parametrize("kind", KINDS)
def test_peft_loads_it_and_it_answers_alike(toy: Toy, tmp_path: Path, kind: str, name: str) -> None:
    before = bytes_of(toy.adapters[kind])
    base = toy.loaded()
    given = toy.given(benign=toy.read(kind))
    treatment = treated(toy.adapters[kind], tmp_path / "out", METHODS[name], given)
    running = Running(treatment.after, base, "fp32")
    with running.placed(), torch.inference_mode():
        wanted = running.logits(ROWS).numpy()
    np.testing.assert_allclose(in_peft(base, tmp_path / "out")(ROWS), wanted, atol=5e-5)
    assert bytes_of(toy.adapters[kind]) == before
    files = {"adapter_config.json", "adapter_model.safetensors"}
    assert set(bytes_of(tmp_path / "out")) == files
    told = [
        json.loads(bytes_of(folder)["adapter_config.json"])
        for folder in (toy.adapters[kind], tmp_path / "out")
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_number_types_stay(toy: Toy, tmp_path: Path, dtype: torch.dtype) -> None:
    source = in_dtype(toy.adapters["lora"], tmp_path / "in", dtype)
    treatment = treated(source, tmp_path / "out")
    written = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {dtype}
    assert {k: v.shape for k, v in written.items()} == {
        k: v.shape for k, v in treatment.before.tensors().items()
    }
    for name, tensor in treatment.before.heads.items():
        np.testing.assert_array_equal(written[name].float().numpy(), tensor)


def test_a_weight_that_does_not_fit_its_type_is_an_error(toy: Toy, tmp_path: Path) -> None:
    source = in_dtype(toy.adapters["lora"], tmp_path / "in", torch.float16)
    with pytest.raises(MalformedFile, match="too large for the file's number type"):
        treated(source, tmp_path / "out", Rescaling(1e9))


def test_what_would_import_code_is_left_out(make_adapter: Any, tmp_path: Path) -> None:
    hostile = {"auto_mapping": {"parent_library": "os", "base_model_class": "x"}, "note": "kept"}
    source = make_adapter(config=hostile)
    for beside in ("run_me.py", "tokenizer.json", "README.md"):
        (source / beside).write_text("{}")
    treatment = treated(source, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert treatment.record.dropped == ["auto_mapping"]
    assert "auto_mapping" not in config
    assert config["note"] == "kept"
    files = {"adapter_config.json", "adapter_model.safetensors"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files


@pytest.mark.parametrize("name", ["", "../../out", "a" * 200, "\u202eevil"])
def test_hostile_names_of_tensors_stay_names(make_adapter: Any, tmp_path: Path, name: str) -> None:
    source = make_adapter(**{name: np.ones((2, 3))})
    treated(source, tmp_path / "out")
    with open_adapter(tmp_path / "out") as written:
        assert name in read_factored(written).kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "out"]


@pytest.mark.parametrize("name", ["\n", "\x1b[31mred", "a" * 2000])
def test_names_that_no_reader_takes_are_one_error(
    make_adapter: Any, tmp_path: Path, name: str
) -> None:
    source = make_adapter(**{name: np.ones((2, 3))})
    with pytest.raises(PeftGuardError) as caught:
        treated(source, tmp_path / "out")
    assert str(caught.value).isprintable()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("there", "dangling"):
        with pytest.raises(SettingsError, match="nothing is overwritten"), staged(tmp_path / name):
            pass
    assert list((tmp_path / "there").iterdir()) == []


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with staged(tmp_path / "out") as folder:
            (folder / "half").write_text("written")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with staged(tmp_path / "deep" / "out") as folder:
        (folder / "all").write_text("written")
    assert (tmp_path / "deep" / "out" / "all").read_text() == "written"
