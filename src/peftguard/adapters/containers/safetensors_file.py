"""Safetensors: the header is parsed here, and tensors are read from the offsets it was checked for.

The safetensors library is not used for reading: its numpy interface has no bfloat16 or 8-bit
floats, it maps the file (SIGBUS if the file shrinks), and of two equal keys it keeps one. What is
accepted here is a subset of what the library accepts, with equal tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.containers.dtypes import WIDTH, is_possible
from peftguard.adapters.containers.names import check_name, shown, too_many
from peftguard.adapters.containers.stored import Stored, StoredTensors
from peftguard.adapters.jsonfile import parse_json
from peftguard.adapters.plainfile import PlainFile
from peftguard.errors import LimitExceeded, MalformedFile
from peftguard.limits import Deadline, Limits

_LENGTH = 8
_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}


def open_safetensors(file: PlainFile, limits: Limits, deadline: Deadline) -> StoredTensors:
    """Open a safetensors file; the tensors come in the order of their bytes.

    Raises:
        MalformedFile: the header breaks the format, or the file does not end where its data do.
        LimitExceeded: a header, name or number of tensors over its limit, or out of time.
    """
    header = _header(file, limits)
    # Cheap, and before a million small objects are made of it.
    if header.count(b'"data_offsets"') > limits.max_tensors:
        raise too_many(file.name, header.count(b'"data_offsets"'), limits)
    entries = parse_json(header, file=file.name, max_nesting=limits.max_nesting)
    deadline.check(f"reading the header of {file.name}")
    metadata = _metadata(entries.pop(_METADATA, {}), file)
    if len(entries) > limits.max_tensors:
        raise too_many(file.name, len(entries), limits)
    start = _LENGTH + len(header)
    stored = []
    for name, entry in entries.items():
        check_name(name, file.name, limits)
        stored.append(_stored(name, entry, start, file))
    stored.sort(key=lambda item: (item.offset, item.info.n_bytes))
    _check_cover(stored, start, file)
    return StoredTensors(file, stored, deadline, format="safetensors", metadata=metadata)


def _header(file: PlainFile, limits: Limits) -> bytes:
    if file.size < _LENGTH:
        raise file.cut_short(_LENGTH)
    length = int.from_bytes(file.head(_LENGTH), "little")
    if _LENGTH + length > file.size:
        raise file.cut_short(_LENGTH + length)
    if length > limits.max_header_bytes:
        raise LimitExceeded(
            "the header is too large",
            file=file.name,
            expected=f"at most {limits.max_header_bytes} bytes",
            found=f"{length} bytes",
        )
    header = file.read(_LENGTH, length)
    if not header.startswith(b"{"):
        raise MalformedFile("the header is no JSON object", file=file.name)
    return header


def _metadata(value: object, file: PlainFile) -> dict[str, str]:
    if value is None:  # as MLX writes it
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise MalformedFile("wrong type", file=file.name, key=_METADATA, expected="names to texts")
    try:
        "".join([*value, *value.values()]).encode()
    except UnicodeEncodeError:
        raise MalformedFile("half a surrogate pair", file=file.name, key=_METADATA) from None
    return value


def _stored(name: str, entry: Any, start: int, file: PlainFile) -> Stored:
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise _broken(name, file, "its entry has wrong fields", ", ".join(sorted(_FIELDS)), entry)
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or dtype not in WIDTH:
        raise _broken(name, file, "a dtype that is not read", ", ".join(WIDTH), dtype)
    if not _are_sizes(shape) or not is_possible(shape):
        raise _broken(name, file, "a shape must be a list of sizes", None, shape)
    size = math.prod(shape) * WIDTH[dtype]
    begin, end = _offsets(name, entry["data_offsets"], file)
    if end - begin != size:
        problem = "dtype and shape disagree with the offsets"
        raise _broken(name, file, problem, f"{size} bytes", f"{end - begin} bytes")
    return Stored(TensorInfo(name, dtype, tuple(shape), size), start + begin)


def _offsets(name: str, offsets: Any, file: PlainFile) -> tuple[int, int]:
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(name, file, "offsets must be [begin, end]", None, offsets)
    return offsets[0], offsets[1]


def _are_sizes(value: Any) -> bool:
    """True for a list of integers that fit in 64 bits; JSON's `true` and `1.0` are none."""
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 1 << 64 for item in value
    )


def _check_cover(stored: list[Stored], start: int, file: PlainFile) -> None:
    """The tensors cover the data exactly: no hole to hide in, no byte read twice, none left."""
    end = max((item.offset + item.info.n_bytes for item in stored), default=start)
    if end > file.size:
        raise file.cut_short(end)
    reached = start
    for info, offset, _ in stored:
        if offset != reached:
            problem = "overlaps another tensor" if offset < reached else "a hole lies before it"
            raise _broken(info.name, file, problem, f"offset {reached}", f"offset {offset}")
        reached = offset + info.n_bytes
    if reached != file.size:
        raise MalformedFile(
            "bytes follow the last tensor",
            file=file.name,
            expected=f"{reached} bytes",
            found=f"{file.size} bytes",
        )


def _broken(
    name: str, file: PlainFile, problem: str, expected: str | None, found: object
) -> MalformedFile:
    if isinstance(found, Mapping):
        found = ", ".join(sorted(found)[:8])
    return MalformedFile(problem, file=file.name, key=shown(name), expected=expected, found=found)
