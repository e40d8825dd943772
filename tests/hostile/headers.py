"""Safetensors files with every kind of wrong header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.hostile.base import MIB, HostileFile, holding

ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def safetensors(header: Mapping[str, Any] | bytes, data: bytes = b"") -> bytes:
    """A file with any header whatever."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def simple_safetensors() -> bytes:
    """A well-formed file."""
    return safetensors({"lora_A.weight": ENTRY}, b"\0" * 4)


def files() -> dict[str, HostileFile]:
    name = "adapter_model.safetensors"
    files = {
        key: HostileFile(name, holding(safetensors(header, data)), code)
        for key, (header, data, code) in _bad_headers().items()
    }
    whole = simple_safetensors()
    files |= {
        f"truncated-at-{size}": HostileFile(name, holding(whole[:size]), "file.truncated")
        for size in (0, 1, 7, 8, 9, 20, len(whole) - 4, len(whole) - 1)
    }
    claim = (100 * MIB).to_bytes(8, "little") + b'{"a":'
    return files | {
        "claims-100-MB-header": HostileFile(name, holding(claim), "file.truncated"),
        "huge-header": HostileFile(name, _write_huge_header, "file.limit-reached"),
        "million-tensors": HostileFile(name, _write_million, "file.limit-reached"),
    }


def _bad_headers() -> dict[str, tuple[Mapping[str, Any] | bytes, bytes, str]]:
    bad = "file.malformed"
    four, eight = b"\0" * 4, b"\0" * 8
    apart = {**ENTRY, "data_offsets": [4, 8]}
    return {
        "overlap": ({"a": ENTRY, "b": ENTRY}, four, bad),
        "hole": ({"a": ENTRY, "b": {**ENTRY, "data_offsets": [8, 12]}}, eight + four, bad),
        "hole-at-start": ({"a": apart}, eight, bad),
        "trailing-bytes": ({"a": ENTRY}, eight, bad),
        "offsets-reversed": ({"a": {**ENTRY, "data_offsets": [4, 0]}}, four, bad),
        "offsets-three": ({"a": {**ENTRY, "data_offsets": [0, 4, 4]}}, four, bad),
        "offsets-negative": ({"a": {**ENTRY, "data_offsets": [-4, 0]}}, four, bad),
        "offsets-past-64-bits": (
            {"a": {**ENTRY, "data_offsets": [1 << 64, 4 + (1 << 64)]}}, four, bad,
        ),
        "shape-disagrees": ({"a": {**ENTRY, "shape": [2]}}, four, bad),
        "shape-negative": ({"a": {**ENTRY, "shape": [-1, -1]}}, four, bad),
        "shape-minus-zero": (_raw(b"[-0]", b"[0, 0]"), b"", bad),
        "shape-float": (_raw(b"[1.0]"), four, bad),
        "shape-bool": (_raw(b"[true]"), four, bad),
        "shape-text": (_raw(b'"1"'), four, bad),
        "shape-overflows": ({"a": {**ENTRY, "shape": [1 << 33, 1 << 33, 0]}}, four, bad),
        "shape-40-dimensions": ({"a": {**ENTRY, "shape": [1] * 40}}, four, bad),
        "dtype-unknown": ({"a": {**ENTRY, "dtype": "F33"}}, four, bad),
        "dtype-list": ({"a": {**ENTRY, "dtype": ["F32"]}}, four, bad),
        "entry-null": ({"a": None}, b"", bad),
        "entry-list": ({"a": ["F32", [1], [0, 4]]}, four, bad),
        "field-missing": ({"a": {"dtype": "F32", "shape": [1]}}, four, bad),
        "field-twice": (b'{"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}',
                        four, "file.duplicate-key"),
        "name-twice": (b'{"a":%b,"a":%b}' % (_entry(), _entry()), four, "file.duplicate-key"),
        "name-twice-escaped": (rb'{"a":%b,"\u0061":%b}' % (_entry(), _entry()), four,
                               "file.duplicate-key"),
        "name-nul": ({"a\0b": ENTRY}, four, bad),
        "name-escape": ({"\x1b[2J": ENTRY}, four, bad),
        "name-surrogate": (rb'{"\ud800":%b}' % _entry(), four, bad),
        "name-long": ({"a" * 2000: ENTRY}, four, "file.limit-reached"),
        "metadata-number": ({"__metadata__": {"rank": 8}, "a": ENTRY}, four, bad),
        "metadata-text": ({"__metadata__": "pt", "a": ENTRY}, four, bad),
        "metadata-surrogate": (rb'{"__metadata__":{"x":"\udfff"},"a":%b}' % _entry(), four, bad),
        "header-nan": (b'{"a":NaN}', b"", bad),
        "header-deep": (b'{"a":' + b"[" * 100_000, b"", "file.limit-reached"),
        "header-not-utf8": (b'{"\xff":%b}' % _entry(), four, bad),
        "header-cut": (b'{"a":{"dtype"', b"", bad),
    }  # fmt: skip


def _raw(shape: bytes, offsets: bytes = b"[0, 4]") -> bytes:
    return b'{"a": {"dtype": "F32", "shape": %b, "data_offsets": %b}}' % (shape, offsets)


def _entry() -> bytes:
    return json.dumps(ENTRY).encode()


def _write_huge_header(path: Path) -> None:
    with path.open("wb") as file:
        file.write((17 * MIB).to_bytes(8, "little") + b"{")
        file.truncate(8 + 17 * MIB)


def _write_million(path: Path) -> None:
    entry = '"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    path.write_bytes(safetensors(("{" + ",".join(entry % n for n in range(10**6)) + "}").encode()))
