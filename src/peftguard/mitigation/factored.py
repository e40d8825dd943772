"""An adapter in memory as methods change it: two factors a module, and the other tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.adapter import Adapter
from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.update import Update
from peftguard.errors import MalformedFile, UnsupportedAdapter

Float32 = NDArray[np.float32]
Array = NDArray[np.generic]

_METHODS = ("LORA", "ADALORA")
_PARTS = frozenset({"lora_A", "lora_B", "lora_E", "lora_magnitude_vector", "ranknum"})


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One module's update `scale * B @ A`, and where its parts come from.

    Args:
        module: dotted path in the base model.
        A: (r, in) with AdaLoRA's singular values folded in.
        B: (out, r).
        scale: what the file's settings multiply the product by; it stays.
        magnitude: DoRA's row norms, (out,); None without them.
        names: tensor of each stored part.
    """

    module: str
    A: Float32
    B: Float32
    scale: float
    magnitude: Float32 | None
    names: Mapping[str, str]

    @property
    def rank(self) -> int:
        """Inner dimension as stored."""
        return len(self.A)

    def stored(self) -> dict[str, Float32]:
        """Tensors by name: what was folded in becomes ones."""
        parts = {"lora_A": self.A, "lora_B": self.B, "lora_E": np.ones((self.rank, 1), np.float32)}
        if self.magnitude is not None:
            parts["lora_magnitude_vector"] = self.magnitude
        return {name: parts[part] for part, name in self.names.items() if part in parts}


@dataclass(frozen=True, slots=True, eq=False)
class Factored:
    """An adapter whose every update is one pair of factors.

    Args:
        name: for messages.
        layers: by module, in file order.
        heads: tensors of modules that it brings whole (a classifier's head), by tensor name.
        kept: all other tensors, as they are, by name.
    """

    name: str
    layers: Mapping[str, Layer]
    heads: Mapping[str, Float32]
    kept: Mapping[str, Array]

    def tensors(self) -> dict[str, Array]:
        """Everything by tensor name, in no order."""
        stored = {
            name: own for layer in self.layers.values() for name, own in layer.stored().items()
        }
        return {**self.kept, **self.heads, **stored}


def read_factored(adapter: Adapter) -> Factored:
    """Read an open adapter whole.

    Raises:
        UnsupportedAdapter: not PEFT's LoRA, DoRA or AdaLoRA of linear layers in safetensors.
        MalformedFile: its tensors do not fit each other or are not finite.
        LimitExceeded: out of time, or a module is too large.
    """
    _check_kind(adapter)
    layers = {module: _layer(adapter, parts) for module, parts in adapter.modules.items()}
    heads = {
        entry.tensor: _floats(adapter, entry.tensor)
        for entry in adapter.payload
        if entry.kind in ("classifier-head", "module-to-save")
    }
    mine = {*heads, *(name for layer in layers.values() for name in layer.stored())}
    names = [name for name in adapter.container.tensors if name not in mine]
    kept = {name: adapter.container.read(name) for name in names}
    return Factored(adapter.source.target, layers, heads, kept)


def _check_kind(adapter: Adapter) -> None:
    found = adapter.format, adapter.container.format, adapter.peft_type
    if found[:2] != ("peft", "safetensors") or adapter.peft_type not in _METHODS:
        raise UnsupportedAdapter(
            "cannot be cleaned",
            file=adapter.source.target,
            expected="LoRA, DoRA or AdaLoRA in safetensors, with PEFT's names",
            found=", ".join(found),
        )
    if len(adapter.source.weights) != 1 or adapter.source.config is None:
        raise UnsupportedAdapter(
            "cannot be cleaned",
            file=adapter.source.target,
            expected="one weight file with an adapter_config.json beside it",
            found=", ".join(path.name for path in adapter.source.weights),
        )


def _layer(adapter: Adapter, parts: ModuleParts) -> Layer:
    update = _only(adapter.module_updates(parts.module), parts.module)
    others = parts.info.keys() - _PARTS
    stored = [parts.info[part].shape for part in ("lora_A", "lora_B") if part in parts.info]
    if others or stored != [update.A.shape, update.B.shape]:
        raise UnsupportedAdapter(
            "cannot be cleaned: not two plain factors of a linear layer",
            file=adapter.source.target,
            key=parts.module,
            found=", ".join(f"{part} {info.shape}" for part, info in parts.info.items()),
        )
    A, B = (factor.astype(np.float32) for factor in (update.A, update.B))
    _check_finite([A, B], adapter, parts.module)
    magnitude = None
    if "lora_magnitude_vector" in parts.info:
        magnitude = parts.read("lora_magnitude_vector").astype(np.float32)
    names = {part: info.name for part, info in parts.info.items()}
    return Layer(parts.module, A, B, update.scale, magnitude, names)


def _only(updates: Iterable[Update], module: str) -> Update:
    found = list(updates)
    if len(found) != 1:
        raise UnsupportedAdapter("a stack of experts cannot be cleaned", key=module)
    return found[0]


def _floats(adapter: Adapter, name: str) -> Float32:
    value = adapter.container.read(name)
    if value.dtype.kind != "f":
        raise MalformedFile("weights are not floating point", file=adapter.source.target, key=name)
    floats: Float32 = value.astype(np.float32)
    _check_finite([floats], adapter, name)
    return floats


def _check_finite(arrays: Iterable[Float32], adapter: Adapter, key: str) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise MalformedFile("weights are not finite", file=adapter.source.target, key=key)
