"""Tensors of a file, grouped by the module that they adapt and read in PEFT's orientation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np

from peftguard.adapters.containers.base import Container, TensorInfo
from peftguard.adapters.keys.base import Part
from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.update import FloatArray
from peftguard.errors import LimitExceeded, MalformedFile
from peftguard.limits import Limits

_RANKED = {
    "lora_A": 0,
    "lora_embedding_A": 0,
    "experts_lora_B": -1,
    "hada_w1_b": 0,
    "hada_w2_b": 0,
    "lokr_w2_b": 0,
    "lokr_w1_b": 0,
    "vera_lambda_d": 0,
}
"""Parts that show the rank, and on which axis."""


def group(parts: Iterable[Part], container: Container, limits: Limits) -> dict[str, ModuleParts]:
    """Tensors by module, in file order; those of no module (VeRA's projections) are shared by all.

    Raises:
        MalformedFile: two tensors claim the same part of one module.
    """
    by_module: dict[str, dict[str, Part]] = {}
    for part in parts:
        own = by_module.setdefault(part.module, {})
        if part.part in own:
            raise MalformedFile(
                "two tensors claim the same part of a module",
                file=container.path.name,
                key=part.tensor,
                found=own[part.part].tensor,
                code="file.duplicate-key",
            )
        own[part.part] = part
    shared = by_module.pop("", {})
    readers = {name: partial(_read, container, part, limits) for name, part in shared.items()}
    return {
        module: _module(module, own, container, readers, limits)
        for module, own in by_module.items()
    }


def stored_rank(module: ModuleParts) -> int | None:
    """Inner dimension of a module's factors as stored, None where its method has no such thing."""
    for part, axis in _RANKED.items():
        info = module.info.get(part)
        if info is not None and info.shape:
            return info.shape[axis]
    return None


def _module(
    module: str,
    own: Mapping[str, Part],
    container: Container,
    shared: Mapping[str, Callable[[], FloatArray]],
    limits: Limits,
) -> ModuleParts:
    info = {name: _oriented(container.tensors[part.tensor], part) for name, part in own.items()}
    return ModuleParts(module, info, lambda name: _read(container, own[name], limits), shared)


def _oriented(info: TensorInfo, part: Part) -> TensorInfo:
    if not part.transposed or len(info.shape) < 2:
        return info
    shape = (*info.shape[:-2], *reversed(info.shape[-2:]))
    return TensorInfo(info.name, info.dtype, shape, info.n_bytes)


def _read(container: Container, part: Part, limits: Limits) -> FloatArray:
    info = container.tensors[part.tensor]
    if 4 * info.n_parameters > limits.max_module_bytes:
        raise LimitExceeded(
            "the tensor is too large",
            file=container.path.name,
            key=part.tensor,
            expected=f"at most {limits.max_module_bytes} bytes as float32",
            found=f"{4 * info.n_parameters} bytes",
        )
    array = container.read(part.tensor)
    if part.part in ("alpha", "ranknum") and array.dtype.kind in "iu":
        return array.astype(np.float32)
    if array.dtype.kind != "f":
        raise MalformedFile(
            "weights are not floating point",
            file=container.path.name,
            key=part.tensor,
            expected="a float dtype",
            found=info.dtype,
        )
    floats: FloatArray = array.astype(array.dtype, copy=False)
    return floats.swapaxes(-1, -2) if part.transposed and array.ndim > 1 else floats
