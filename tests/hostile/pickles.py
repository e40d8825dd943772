"""Pickles that run code, hide it, or cost more than they are worth."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tests.hostile.archives import zip_of
from tests.hostile.base import MARKER, MIB, HostileFile, holding


def torch_zip(pickled: bytes | None = None, more: Mapping[str, bytes] | None = None) -> bytes:
    """What `torch.save({"a": torch.zeros(2)})` writes, or the same around another pickle."""
    return zip_of(
        {
            "archive/data.pkl": TENSOR_PICKLE if pickled is None else pickled,
            "archive/byteorder": b"little",
            "archive/data/0": b"\0" * 8,
            "archive/version": b"3\n",
            **(more or {}),
        }
    )


def tensor_pickle(size: bytes = b"K\x02", stride: bytes = b"K\x01") -> bytes:
    """A dict of one tensor on a storage of two floats; size and stride as pickled numbers."""
    return (
        b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n("
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ"
        b"K\0" + size + b"\x85" + stride + b"\x85\x89ccollections\nOrderedDict\n)RtRs."
    )


TENSOR_PICKLE = tensor_pickle()


def _protocol_0(command: str) -> bytes:
    return f"cos\nsystem\n(S'{command}'\ntR.".encode()


def protocol_2(command: str) -> bytes:
    return b"\x80\x02cposix\nsystem\n" + _text(command) + b"\x85R."


def _protocol_4(command: str) -> bytes:
    return pickle.dumps(_Call(os.system, command), protocol=4)


def _eval(command: str) -> bytes:
    return pickle.dumps(_Call(eval, f"__import__('os').system({command!r})"), protocol=2)


def _memoised(command: str) -> bytes:
    """Module and name come from the memo, far from where they are used."""
    return b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x9400h\0h\1\x93" + _text(command) + b"\x85R."


def _unlisted(command: str) -> bytes:
    """A way to run code that a list of bad names may lack."""
    return pickle.dumps(_Call(__import__("code").interact, command), protocol=2)


def _without_end(command: str) -> bytes:
    """By the time a loader notices that the pickle breaks off, it has run."""
    return _protocol_0(command)[:-1]


def _second(command: str) -> bytes:
    return pickle.dumps({"a": 1}, protocol=2) + protocol_2(command)


class _Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def files() -> dict[str, HostileFile]:
    runs, unsafe = "file.executes-code", "file.unsafe-pickle"
    evil = {
        "protocol-0": (_protocol_0, runs),
        "protocol-2": (protocol_2, runs),
        "protocol-4": (_protocol_4, runs),
        "eval": (_eval, runs),
        "memoised": (_memoised, runs),
        "unlisted": (_unlisted, unsafe),
        "without-end": (_without_end, runs),
        "second-in-file": (_second, runs),
    }
    files = {}
    for key, (make, code) in evil.items():
        files[f"pickle-{key}"] = HostileFile("adapter_model.bin", partial(write_evil, make), code)
        zipped = partial(write_evil, partial(_in_torch_zip, make))
        files[f"pickle-{key}-in-zip"] = HostileFile("adapter_model.bin", zipped, code)
    wrong_name = partial(write_evil, partial(_in_odd_zip, protocol_2))
    array = pickle.dumps({"a": np.zeros(3)}, protocol=2)
    script = torch_zip(more={"archive/constants.pkl": b"\x80\x02)."})
    return files | {
        "pickle-in-zip-by-another-name": HostileFile("adapter_model.pt", wrong_name, runs),
        "pickle-of-numpy": HostileFile("adapter_model.bin", holding(array), unsafe),
        "pickle-cut": HostileFile(
            "adapter_model.bin", holding(TENSOR_PICKLE[:40]), "file.truncated"
        ),
        "pickle-broken": HostileFile(
            "adapter_model.bin", holding(b"\x80\x02\xff."), "file.malformed"
        ),
        "pickle-endless": HostileFile(
            "adapter_model.bin",
            holding(b"\x80\x02" + b"0" * 17 * MIB),
            "file.limit-reached",
        ),
        "torchscript": HostileFile("adapter_model.pt", holding(script), runs),
        **_greedy_pickles(),
    }


def _greedy_pickles() -> dict[str, HostileFile]:
    """Nothing in them is forbidden; they cost more than they are worth."""
    number = b"\x8a\x06" + (1 << 42).to_bytes(6, "little")
    memory = b"\x80\x02cbuiltins\nbytearray\n" + number + b"\x85R."
    expands = tensor_pickle(number, b"K\0")
    limit = "file.limit-reached"
    return {
        key: HostileFile("adapter_model.bin", holding(torch_zip(data)), limit, False, "torch")
        for key, data in {"pickle-eats-memory": memory, "pickle-expands": expands}.items()
    }


def slow_pickle() -> bytes:
    """Takes a minute to load: a set of the elements of four billion zeros."""
    number = b"\x8a\x05" + (1 << 32).to_bytes(5, "little")
    return torch_zip(b"\x80\x02cbuiltins\nset\ncbuiltins\nbytearray\n" + number + b"\x85R\x85R.")


def _in_torch_zip(make: Callable[[str], bytes], command: str) -> bytes:
    return torch_zip(make(command))


def _in_odd_zip(make: Callable[[str], bytes], command: str) -> bytes:
    return zip_of({"weights/readme.txt": b"hello", "weights/logo.png": make(command)})


def write_evil(make: Callable[[str], bytes], path: Path) -> None:
    path.write_bytes(make(f"touch {path.parent / MARKER}"))
