"""Read whole, every tensor comes out once, and the update is what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.mitigation.conftest import KINDS, Toy

from peftguard.adapters.adapter import open_adapter
from peftguard.errors import MalformedFile, PeftGuardError, UnsupportedAdapter
from peftguard.mitigation.factored import read_factored


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_comes_out_once_with_its_shape(toy: Toy, kind: str) -> None:
    with open_adapter(toy.adapters[kind]) as adapter:
        read = read_factored(adapter)
        tensors = read.tensors()
        assert tensors.keys() == adapter.container.tensors.keys()
        for name, info in adapter.container.tensors.items():
            assert tensors[name].shape == info.shape
            if "lora_" not in name or kind != "adalora":
                np.testing.assert_array_equal(tensors[name], adapter.container.read(name))


@pytest.mark.parametrize("kind", KINDS)
def test_the_update_is_the_readers(toy: Toy, kind: str) -> None:
    read = toy.read(kind)
    with open_adapter(toy.adapters[kind]) as adapter:
        updates = {update.module: update for update in adapter.updates()}
    assert updates.keys() == read.layers.keys()
    for module, layer in read.layers.items():
        update = updates[module]
        whole = update.scale * update.B @ update.A
        np.testing.assert_allclose(layer.scale * layer.B @ layer.A, whole, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "changes", "wanted"),
    [
        ({"peft_type": "LOHA"}, {}, UnsupportedAdapter),
        ({"init_lora_weights": "pissa"}, {}, UnsupportedAdapter),
        ({}, {"lora_B": np.full((24, 4), np.nan)}, MalformedFile),
        ({}, {"lora_B": np.ones((24, 3))}, MalformedFile),
        ({}, {"lora_B": None}, MalformedFile),
        ({"use_bdlora": {"nblocks": 2, "target_modules_bd_a": ["q_proj"]}}, {}, UnsupportedAdapter),
    ],
)
def test_what_cannot_be_cleaned_is_one_error(
    make_adapter: Any, config: dict[str, Any], changes: dict[str, Any], wanted: type[Exception]
) -> None:
    start = "base_model.model.model.layers.0.self_attn.q_proj."
    tensors = {f"{start}{part}.weight": value for part, value in changes.items()}
    folder = make_adapter(config=config, **tensors)
    with pytest.raises(wanted) as caught, open_adapter(folder) as adapter:
        read_factored(adapter)
    assert isinstance(caught.value, PeftGuardError)


def test_a_file_without_its_config_is_refused(toy: Toy, tmp_path: Path) -> None:
    alone = tmp_path / "lora.safetensors"
    alone.write_bytes((toy.adapters["lora"] / "adapter_model.safetensors").read_bytes())
    with (
        open_adapter(alone) as adapter,
        pytest.raises(UnsupportedAdapter, match=r"adapter_config\.json"),
    ):
        read_factored(adapter)
