"""GGUF files with counts, types and offsets that lie."""

from __future__ import annotations

import struct

from tests.hostile.base import HostileFile, holding


def gguf(
    tensors: bytes = b"",
    values: bytes = b"",
    *,
    n_tensors: int = 0,
    n_values: int = 0,
    version: int = 3,
    data: bytes = b"",
) -> bytes:
    """A GGUF file with any counts and bytes whatever; `data` starts at the next 32 bytes."""
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_values) + values + tensors
    return head + b"\0" * (-len(head) % 32 if data else 0) + data


def gguf_text(text: str) -> bytes:
    """A string as GGUF has it."""
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_tensor(name: str, sides: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    """The entry of a tensor."""
    shape = struct.pack(f"<I{len(sides)}Q", len(sides), *sides)
    return gguf_text(name) + shape + struct.pack("<IQ", kind, offset)


def files() -> dict[str, HostileFile]:
    bad, cut, limit = "file.malformed", "file.truncated", "file.limit-reached"
    a, data = gguf_tensor("a"), b"\0" * 32
    endless = gguf_text("k") + struct.pack("<IIQ", 9, 8, 1 << 60)
    numbers = gguf_text("k") + struct.pack("<IIQ", 9, 4, 1 << 60)
    nested = gguf_text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 1000
    aligned = gguf_text("general.alignment") + struct.pack("<II", 4, 3)
    files = {
        "gguf-magic-only": (b"GGUF", cut),
        "gguf-version-1": (gguf(version=1), bad),
        "gguf-big-endian": (gguf(version=3 << 24), bad),
        "gguf-many-tensors": (gguf(n_tensors=1 << 60), limit),
        "gguf-many-values": (gguf(n_values=1 << 60), limit),
        "gguf-endless-strings": (gguf(values=endless, n_values=1), cut),
        "gguf-endless-numbers": (gguf(values=numbers, n_values=1), cut),
        "gguf-nested-arrays": (gguf(values=nested, n_values=1), bad),
        "gguf-value-type": (gguf(values=gguf_text("k") + b"\xff\0\0\0", n_values=1), bad),
        "gguf-key-twice": (
            gguf(values=(gguf_text("k") + struct.pack("<II", 4, 1)) * 2, n_values=2),
            "file.duplicate-key",
        ),
        "gguf-alignment": (gguf(a, aligned, n_tensors=1, n_values=1, data=data), bad),
        "gguf-name-twice": (gguf(a + a, n_tensors=2, data=data * 2), "file.duplicate-key"),
        "gguf-name-nul": (gguf(gguf_tensor("a\0"), n_tensors=1, data=data), bad),
        "gguf-not-utf8": (
            gguf(a.replace(b"a", b"\xff"), n_tensors=1, data=data), bad
        ),
        "gguf-outside": (gguf(gguf_tensor("a", offset=1 << 62), n_tensors=1, data=data), cut),
        "gguf-no-data": (gguf(a, n_tensors=1), cut),
        "gguf-unaligned": (gguf(gguf_tensor("a", offset=4), n_tensors=1, data=data * 2), bad),
        "gguf-huge-shape": (gguf(gguf_tensor("a", (1 << 40,) * 4), n_tensors=1, data=data), bad),
        "gguf-many-dimensions": (gguf(gguf_tensor("a", (1,) * 9), n_tensors=1, data=data), bad),
        "gguf-overlap": (gguf(a + gguf_tensor("b"), n_tensors=2, data=data), bad),
    }  # fmt: skip
    return {
        key: HostileFile("adapter.gguf", holding(data), code) for key, (data, code) in files.items()
    }
