"""Small torch models with real PEFT adapters, saved and read back without the rest of peftguard."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.keys.base import Part
from peftguard.adapters.keys.peft import PEFT
from peftguard.adapters.methods import METHODS, prepared
from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.update import Update

Tensors = Mapping[str, np.ndarray]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """PEFT warns about much that these tests do on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def parts() -> Callable[..., ModuleParts]:
    """Make the parts of a module from arrays."""
    return _parts


@pytest.fixture
def dense() -> Callable[[Update], np.ndarray]:
    """The update as a matrix in double precision."""
    return _dense


@pytest.fixture
def updates_of() -> Callable[[Tensors, Mapping[str, Any]], dict[str, list[Update]]]:
    """Updates by module of the tensors and the config of a PEFT file."""
    return _updates_of


@pytest.fixture
def golden(tmp_path: Path) -> Callable[..., dict[str, list[Update]]]:
    """Adapt a model with random weights, save it, and compare our updates with PEFT's deltas.

    `dtype` is that of the saved file; PEFT loads the values it then holds. Returns our updates.
    """

    def run(
        base: Callable[[], Any], config: Any, dtype: Any = None, edit: Callable[..., Any] = dict
    ) -> dict[str, list[Update]]:
        model, tensors = _save_and_load(base, config, tmp_path, dtype, edit)
        ours = _updates_of(tensors, json.loads((tmp_path / "adapter_config.json").read_text()))
        theirs = _deltas(model)
        assert ours.keys() == theirs.keys()
        for module, expected in theirs.items():
            assert len(ours[module]) == len(expected)
            for update, delta in zip(ours[module], expected, strict=True):
                assert update.shape == delta.shape
                assert np.linalg.norm(delta) > 0
                error = np.linalg.norm(_dense(update) - delta) / np.linalg.norm(delta)
                assert error < 1e-5, (module, error)
        return ours

    return run


def _parts(module: str = "m", /, **arrays: Any) -> ModuleParts:
    named = {name.replace("__", "."): np.asarray(a, np.float32) for name, a in arrays.items()}
    info = {name: TensorInfo(name, "F32", a.shape, a.nbytes) for name, a in named.items()}
    return ModuleParts(module, info, named.__getitem__, {})


def _dense(update: Update) -> np.ndarray:
    product = update.B.astype(float) @ update.A.astype(float)
    if update.left is not None:
        product = np.kron(update.left.astype(float), product)
    return update.scale * product


def _updates_of(tensors: Tensors, config: Mapping[str, Any]) -> dict[str, list[Update]]:
    info = {name: TensorInfo(name, "F32", a.shape, a.nbytes) for name, a in tensors.items()}
    grouped: dict[str, dict[str, str]] = {}
    for entry in PEFT.parse(info, config):
        if isinstance(entry, Part):
            grouped.setdefault(entry.module, {})[entry.part] = entry.tensor
    shared = {part: lambda name=name: tensors[name] for part, name in grouped.pop("", {}).items()}
    modules = {
        module: ModuleParts(
            module,
            {part: info[name] for part, name in group.items()},
            lambda part, group=group: tensors[group[part]],
            shared,
        )
        for module, group in grouped.items()
    }
    peft_type = config["peft_type"]
    ready = prepared(peft_type, modules, config)
    return {name: list(METHODS[peft_type].updates(m, config)) for name, m in ready.items()}


def _save_and_load(
    base: Callable[[], Any], config: Any, folder: Path, dtype: Any, edit: Callable[..., Any]
) -> tuple[Any, dict[str, np.ndarray]]:
    import peft
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    model = peft.get_peft_model(base(), config)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.numel():
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    state = edit(load_file(folder / "adapter_model.safetensors"))
    if dtype is not None:
        state = {name: tensor.to(dtype) for name, tensor in state.items()}
        save_file(state, folder / "adapter_model.safetensors")
        state = load_file(folder / "adapter_model.safetensors")
    state = {name: tensor.float() for name, tensor in state.items()}
    torch.manual_seed(0)
    loaded = peft.get_peft_model(base(), peft.PeftConfig.from_pretrained(folder))
    result = peft.set_peft_model_state_dict(loaded, state)
    assert not result.unexpected_keys
    return loaded, {name: tensor.numpy() for name, tensor in state.items()}


def _deltas(model: Any) -> dict[str, list[np.ndarray]]:
    """PEFT's delta weights as maps of the input, by path of the wrapping layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {
        name: _as_maps(layer)
        for name, layer in model.base_model.model.named_modules()
        if isinstance(layer, BaseTunerLayer)
    }


def _as_maps(layer: Any) -> list[np.ndarray]:
    import torch
    from peft.tuners.lora.layer import ParamWrapper
    from peft.tuners.lora.variants import BdLoraLinearVariant

    with torch.no_grad():
        variant = getattr(layer, "lora_variant", {}).get("default")
        if isinstance(variant, BdLoraLinearVariant):
            delta = variant._get_bdlora_delta_weight(layer, "default")
        else:
            delta = layer.get_delta_weight("default")
    delta = delta.double().numpy()
    if isinstance(layer, ParamWrapper) and delta.ndim == 3:
        return list(delta if layer._did_swap_in_out_features else delta.swapaxes(1, 2))
    is_embedding = isinstance(layer.get_base_layer(), torch.nn.Embedding)
    if is_embedding or getattr(layer, "fan_in_fan_out", False):
        return [delta.T]
    return [delta.reshape(delta.shape[0], -1)]
