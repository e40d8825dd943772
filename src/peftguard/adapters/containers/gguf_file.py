"""GGUF: parsed here within bounds; only quantised tensors need the gguf package.

gguf's own reader is not used on strangers' files. It believes every count it reads (an array of
2^60 elements loops until memory is gone), takes slices past the end as empty, and maps the file.
Its dequantisation, which is pure arithmetic, is used.
"""

from __future__ import annotations

import importlib.util
import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.containers.dtypes import WIDTH, decode, is_possible
from peftguard.adapters.containers.names import check_name, shown, too_many, twice
from peftguard.adapters.containers.stored import Decode, Stored, StoredTensors
from peftguard.adapters.plainfile import PlainFile
from peftguard.errors import LimitExceeded, MalformedFile, MissingExtra
from peftguard.limits import Deadline, Limits

_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "|b1",
    10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
# ggml's type numbers that are plain numbers, by their safetensors names.
_PLAIN = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
_ALIGNMENT = "general.alignment"
_EXTRA = ("reading a quantised GGUF adapter", "gguf")


def open_gguf(file: PlainFile, limits: Limits, deadline: Deadline) -> StoredTensors:
    """Open a GGUF file; key-values become text, arrays as JSON, and shapes are row-major.

    Raises:
        MalformedFile: the header breaks the format, or a tensor lies outside the file.
        LimitExceeded: a header, name or number of tensors over its limit, or out of time.
        MissingExtra: a tensor is quantised, and the gguf package is not installed.
    """
    cursor = _Cursor(file, limits)
    n_tensors, n_values = _counts(cursor, limits)
    metadata = _metadata(cursor, n_values, deadline)
    entries = [_entry(cursor, limits) for _ in range(n_tensors)]
    deadline.check(f"reading the header of {file.name}")
    alignment = _alignment(metadata, file)
    start = -(-cursor.position // alignment) * alignment
    stored = [_stored(entry, start, alignment, file) for entry in entries]
    stored.sort(key=lambda item: (item.offset, item.info.n_bytes))
    _check_layout(stored, file)
    return StoredTensors(file, stored, deadline, format="gguf", metadata=metadata)


class _Cursor:
    """Reads the header front to back; no length in it is believed before it is compared."""

    def __init__(self, file: PlainFile, limits: Limits) -> None:
        self.file, self.position = file, 4
        self._head = file.head(limits.max_header_bytes)

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self.position + size
        if end > self.file.size:
            raise self.file.cut_short(end)
        if end > len(self._head):
            raise LimitExceeded(
                "the header is too large",
                file=self.file.name,
                expected=f"at most {len(self._head)} bytes",
                found=f"{end} bytes",
            )
        data = self._head[self.position : end]
        self.position = end
        return data

    def u32(self) -> int:
        """The next four bytes as a number."""
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        """The next eight bytes as a number."""
        return int.from_bytes(self.take(8), "little")

    def text(self) -> str:
        """The next string: its length, then UTF-8."""
        data = self.take(self.u64())
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise MalformedFile("text is not UTF-8", file=self.file.name) from None


def _counts(cursor: _Cursor, limits: Limits) -> tuple[int, int]:
    version = cursor.u32()
    if version not in _VERSIONS:
        # Big-endian files come out here as well; their version reads as a very large number.
        raise MalformedFile(
            "a GGUF version that is not read",
            file=cursor.file.name,
            expected="little-endian 2 or 3",
            found=str(version),
        )
    n_tensors, n_values = cursor.u64(), cursor.u64()
    for count in (n_tensors, n_values):
        if count > limits.max_tensors:
            raise too_many(cursor.file.name, count, limits)
    return n_tensors, n_values


def _metadata(cursor: _Cursor, count: int, deadline: Deadline) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for _ in range(count):
        key = cursor.text()
        if key in metadata:
            raise twice(cursor.file.name, key)
        value = _value(cursor, cursor.u32())
        metadata[key] = value if isinstance(value, str) else json.dumps(value)
        deadline.check(f"reading the header of {cursor.file.name}")
    return metadata


def _value(cursor: _Cursor, kind: int) -> Any:
    if kind == _STRING:
        return cursor.text()
    if kind == _ARRAY:
        return _array(cursor)
    return _scalars(cursor, kind, 1)[0]


def _array(cursor: _Cursor) -> list[Any]:
    kind, count = cursor.u32(), cursor.u64()
    if kind == _STRING:
        # Stops at the end of the header: each string takes eight bytes of it or more.
        return [cursor.text() for _ in range(count)]
    return _scalars(cursor, kind, count)


def _scalars(cursor: _Cursor, kind: int, count: int) -> list[Any]:
    if kind not in _SCALARS:
        raise MalformedFile("an unknown type of value", file=cursor.file.name, found=str(kind))
    dtype = np.dtype(_SCALARS[kind])
    values: list[Any] = np.frombuffer(cursor.take(count * dtype.itemsize), dtype).tolist()
    return values


_Entry = tuple[str, tuple[int, ...], int, int]
"""Name, row-major shape, ggml type number, offset from the start of the data."""


def _entry(cursor: _Cursor, limits: Limits) -> _Entry:
    name = cursor.text()
    check_name(name, cursor.file.name, limits)
    n_dimensions = cursor.u32()
    if n_dimensions > _MAX_DIMENSIONS:
        raise MalformedFile(
            "too many dimensions",
            file=cursor.file.name,
            key=shown(name),
            expected=f"at most {_MAX_DIMENSIONS}",
            found=str(n_dimensions),
        )
    sides = [cursor.u64() for _ in range(n_dimensions)]
    return name, tuple(reversed(sides)), cursor.u32(), cursor.u64()


def _alignment(metadata: dict[str, str], file: PlainFile) -> int:
    text = metadata.get(_ALIGNMENT, "32")
    alignment = int(text) if text.isascii() and text.isdecimal() and len(text) < 8 else 0
    if alignment == 0 or alignment & (alignment - 1):
        raise MalformedFile(
            "wrong alignment", file=file.name, expected="a power of two", found=text
        )
    return alignment


def _stored(entry: _Entry, start: int, alignment: int, file: PlainFile) -> Stored:
    name, shape, kind, offset = entry
    dtype, block, width, decoder = _type(kind, name, file)
    if not is_possible(shape) or (shape[-1] if shape else 1) % block:
        raise MalformedFile(
            f"a shape that {dtype} cannot have", file=file.name, key=shown(name), found=str(shape)
        )
    size = math.prod(shape) // block * width
    if offset % alignment:
        raise MalformedFile("not aligned", file=file.name, key=shown(name), found=str(offset))
    if start + offset + size > file.size:
        raise file.cut_short(start + offset + size)
    return Stored(TensorInfo(name, dtype, shape, size), start + offset, decoder)


def _type(kind: int, name: str, file: PlainFile) -> tuple[str, int, int, Decode]:
    """Name of a ggml type, elements in a block, bytes of a block, and its decoder."""
    if kind in _PLAIN:
        return _PLAIN[kind], 1, WIDTH[_PLAIN[kind]], decode
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra(*_EXTRA)
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        quantised = GGMLQuantizationType(kind)
    except ValueError:
        raise MalformedFile(
            "an unknown tensor type", file=file.name, key=shown(name), found=str(kind)
        ) from None
    block, width = GGML_QUANT_SIZES[quantised]
    return quantised.name, block, width, _dequantise


def _dequantise(raw: NDArray[np.uint8], info: TensorInfo) -> NDArray[np.generic]:
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        values = dequantize(raw, GGMLQuantizationType[info.dtype])
    except NotImplementedError:
        raise MalformedFile(
            "a quantisation that is not read", key=shown(info.name), found=info.dtype
        ) from None
    return np.asarray(values, np.float32).reshape(info.shape)


def _check_layout(stored: list[Stored], file: PlainFile) -> None:
    """Gaps are padding; two tensors on the same bytes, or of the same name, are not accepted."""
    names, reached = set(), 0
    for info, offset, _ in stored:
        if info.name in names:
            raise twice(file.name, info.name)
        if offset < reached:
            raise MalformedFile("overlaps another tensor", file=file.name, key=shown(info.name))
        names.add(info.name)
        reached = offset + info.n_bytes
