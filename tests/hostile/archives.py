"""Zip archives that lie, and NumPy arrays in them."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tests.hostile.base import MIB, HostileFile, holding


def zip_of(
    members: Mapping[str, bytes],
    *,
    compression: int = zipfile.ZIP_STORED,
    edit: Callable[[zipfile.ZipFile], None] | None = None,
) -> bytes:
    """A zip archive; `edit` may falsify its directory before it is written."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
        if edit is not None:
            edit(archive)
    return buffer.getvalue()


def npy(array: np.ndarray, **options: Any) -> bytes:
    """One array as `numpy.save` writes it."""
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npy_with_header(text: str, data: bytes = b"") -> bytes:
    """An array file with any header whatever."""
    header = text.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + data


def files() -> dict[str, HostileFile]:
    bad = "file.malformed"
    objects = npy(np.array([{}], dtype=object), allow_pickle=True)
    header = "{'descr': %s, 'fortran_order': False, 'shape': %s}"
    arrays = {
        "npz-of-objects": objects,
        "npz-of-texts": npy(np.array(["a"])),
        "npz-big-endian": npy(np.zeros(2, ">f4")),
        "npz-of-records": npy(np.zeros(2, [("a", "f4")])),
        "npz-not-an-array": b"hello",
        "npz-cut": npy(np.zeros(9))[:-8],
        "npz-negative": npy_with_header(header % ("'<f4'", "(-1,)"), b"\0" * 4),
        "npz-huge": npy_with_header(header % ("'<f4'", f"({1 << 62}, 4)"), b"\0" * 4),
        "npz-header-call": npy_with_header(header % ("'<f4'", "(__import__('os').getpid(),)")),
        "npz-header-deep": npy_with_header("(" * 5000),
        "npz-header-long": npy_with_header("[" + "1," * 20000 + "]"),
    }
    files = {
        key: HostileFile("adapters.npz", holding(zip_of({"a.npy": data})), bad)
        for key, data in arrays.items()
    }
    bomb = zip_of({"a.npy": npy(np.zeros(MIB))}, compression=zipfile.ZIP_DEFLATED)
    return files | {"npz-bomb": HostileFile("adapters.npz", holding(bomb), bad)}
