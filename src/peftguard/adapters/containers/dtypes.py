"""Element types by their safetensors names: how wide they are, and how they become numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.containers.base import TensorInfo

# As stored, little-endian. numpy has no bfloat16 and no 8-bit floats.
_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_FLOAT8 = {
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}

WIDTH: dict[str, int] = {
    **{name: np.dtype(code).itemsize for name, code in _NUMPY.items()},
    **dict.fromkeys(_FLOAT8, 1),
    "BF16": 2,
}
"""Bytes an element takes, for every type that can be read."""

_PIECE = 1 << 18
_MAX_DIMENSIONS = 32
_MAX_ELEMENTS = 1 << 56


def is_possible(shape: Sequence[int]) -> bool:
    """True if numpy can make an array of this shape; empty sides count as one, as they do there."""
    if len(shape) > _MAX_DIMENSIONS:
        return False
    return math.prod(side or 1 for side in shape) <= _MAX_ELEMENTS


def name_of(dtype: np.dtype[np.generic]) -> str | None:
    """Safetensors name of a little-endian numpy type; None if it has none."""
    return next((name for name, code in _NUMPY.items() if np.dtype(code) == dtype), None)


def decode(raw: NDArray[np.uint8], info: TensorInfo) -> NDArray[np.generic]:
    """The bytes of one tensor as an array: small floats as float32, other types unchanged."""
    return _flat(raw, info.dtype).reshape(info.shape)


def _flat(raw: NDArray[np.uint8], dtype: str) -> NDArray[np.generic]:
    if dtype == "F16":
        return _widened(raw.view(np.uint16))
    # Shifting is as fast as ml_dtypes, and takes no import.
    if dtype == "BF16":
        widened = raw.view(np.uint16).astype(np.uint32)
        widened <<= 16
        return widened.view(np.float32)
    if dtype in _FLOAT8:
        import ml_dtypes

        float8 = np.dtype(getattr(ml_dtypes, _FLOAT8[dtype]))
        return np.asarray(raw.view(float8), np.float32)
    # Any byte but 0 is true; numpy alone would believe that there is only 1.
    array: NDArray[np.generic] = raw != 0 if dtype == "BOOL" else raw.view(_NUMPY[dtype])
    return array


def _widened(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """float16, given as its bits, looked up in a table: twice as fast as numpy's conversion.

    In pieces, because `take` makes eight bytes of index of every element.
    """
    table, wide = _every_half(), np.empty(halves.size, np.float32)
    for start in range(0, halves.size, _PIECE):
        piece = slice(start, start + _PIECE)
        table.take(halves[piece], out=wide[piece], mode="clip")
    return wide


@cache
def _every_half() -> NDArray[np.float32]:
    """Every float16 as float32, by its bits."""
    return np.arange(1 << 16, dtype="<u2").view("<f2").astype(np.float32)
