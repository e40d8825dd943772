"""Base models that are none, or cannot be loaded: one line that names them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.trigger.conftest import save_adapter, write_base

from peftguard.adapters.adapter import open_adapter
from peftguard.errors import SettingsError
from peftguard.padbench.training.base import load_base
from peftguard.trigger.ready import check_ready
from peftguard.trigger.subject import Subject, base_folder

T5 = {
    "model_type": "t5",
    **{"d_model": 8, "num_layers": 1, "d_ff": 8, "num_heads": 1, "d_kv": 8},
}


@pytest.mark.parametrize("check", [check_ready, base_folder])
def test_a_file_is_no_base_model_and_no_hub_id(check: object, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(SettingsError, match=r"no base model '.*model\.gguf'; expected its folder"):
        check(str(tmp_path / "model.gguf"))  # type: ignore[operator]


def test_nothing_is_no_base_model() -> None:
    with pytest.raises(SettingsError, match="no base model ''; expected its folder"):
        check_ready("")


@pytest.mark.parametrize("name", ["org/none", "not an id", "/nowhere/at/all"])
def test_what_the_hub_does_not_have_is_one_line(name: str) -> None:
    with pytest.raises(SettingsError, match=f"no base model '{name}' that can be read") as caught:
        base_folder(name)
    assert "\n" not in str(caught.value)


def test_a_model_of_another_kind_is_said_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(T5))
    with pytest.raises(SettingsError, match="of t5's kind"):
        check_ready(str(tmp_path))


def test_no_bar_but_ours_is_drawn() -> None:
    drawn = "from tqdm.auto import tqdm; list(tqdm([1]))"
    ready = "from peftguard.trigger.ready import check_ready; check_ready('minilm')"
    words = [sys.executable, "-c", f"{ready}; {drawn}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""


def test_a_base_without_its_weights_is_one_line(tmp_path: Path) -> None:
    name = str(write_base(tmp_path / "base"))
    save_adapter(load_base(name, "classification", 2), tmp_path / "adapter")
    (tmp_path / "base" / "model.safetensors").unlink()
    check_ready(name)
    with (
        open_adapter(tmp_path / "adapter") as adapter,
        pytest.raises(SettingsError, match=r"no base model '.*' that can be read") as caught,
    ):
        Subject.of(name).adapted(adapter)
    assert "\n" not in str(caught.value)
