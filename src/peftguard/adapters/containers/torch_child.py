"""Child process: loads one torch pickle under limits and writes its tensors as safetensors.

Run by path, as `python -P torch_child.py DESCRIPTOR MEMORY SECONDS ROOM` in a folder of its own. It
imports nothing of peftguard, so that it starts as fast as torch does. Exit status 0 means that
`report.json` says how it went. `MEMORY` comes on top of what torch itself takes, which is 600 MiB
of addresses for one build and many times that for another.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

TENSORS = "tensors.safetensors"
REPORT = "report.json"

_MAX_DEPTH = 16
_MAX_ENTRIES = 1_000_000
_MAX_OTHERS = 1000
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2", "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


class ProblemError(Exception):
    """What is wrong with the file, for the parent to report."""

    def __init__(self, problem: str, *, key: str | None = None, cause: str = "malformed") -> None:
        super().__init__(problem)
        self.report = {"problem": problem, "key": key, "cause": cause}


def main(descriptor: int, memory: int, seconds: int, room: int) -> None:
    """Load from `descriptor`, write at most `room` bytes, leave a report; never raises."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        _report({"problem": f"torch cannot be started: {error}", "cause": "memory"})
        return
    _limit(_address_space() + memory, seconds, room)
    try:
        report = _convert(descriptor, room)
    except ProblemError as problem:
        report = problem.report
    except MemoryError:
        report = {"problem": "it does not fit in the memory allowed", "cause": "memory"}
    except OSError as error:
        report = {"problem": f"the copy cannot be written: {error.strerror}", "cause": "size"}
    _report(report)


def _report(report: Mapping[str, Any]) -> None:
    with open(REPORT, "w", encoding="ascii") as file:
        json.dump(report, file)


def _address_space() -> int:
    """Bytes in use so far, 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _limit(memory: int, seconds: int, room: int) -> None:
    import resource

    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 2 * room),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # macOS knows RLIMIT_AS and refuses to set it.
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))


def _convert(descriptor: int, room: int) -> dict[str, Any]:
    loaded = _load(descriptor)
    tensors: dict[str, Any] = {}
    others: list[str] = []
    for count, (name, value) in enumerate(_entries(loaded)):
        if count > _MAX_ENTRIES:
            raise ProblemError(f"more than {_MAX_ENTRIES} entries", cause="size")
        if not _is_tensor(value):
            others.append(f"{name} ({type(value).__name__})")
        elif name in tensors:
            raise ProblemError("a name comes twice", key=name, cause="duplicate")
        else:
            tensors[name] = _plain(name, value)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size > room:
        problem = f"the tensors are {size} bytes, more than the file can hold"
        raise ProblemError(problem, cause="size")
    _write(tensors)
    return {"others": others[:_MAX_OTHERS]}


def _load(descriptor: int) -> Any:
    """An open file and not a path: it cannot be exchanged for another after the scan."""
    import torch

    with os.fdopen(descriptor, "rb") as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        # torch reports its many ways to fail with many types.
        except Exception as error:
            raise _as_problem(error) from None


def _as_problem(error: Exception) -> Exception:
    text = str(error)
    if "allocate memory" in text or "not enough memory" in text or "bad_alloc" in text:
        return MemoryError()
    _, refused, reason = text.partition("WeightsUnpickler error: ")
    if refused or "nsupported" in text:
        return ProblemError(reason or text, cause="refused")
    return ProblemError(f"torch cannot read it: {type(error).__name__}: {text}")


def _entries(loaded: Any) -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything; names in the one state dict get no prefix."""
    if not isinstance(loaded, Mapping):
        yield from _flatten("", loaded, 0)
        return
    inner = _state_dict(loaded)
    for key, value in loaded.items():
        yield from _flatten("" if key is inner else str(key), value, 0)


def _state_dict(loaded: Mapping[Any, Any]) -> Any:
    """Key of the mapping that holds the adapter, where the top level holds no tensor itself."""
    if any(_is_tensor(value) for value in loaded.values()):
        return None
    holders = [
        key
        for key, value in loaded.items()
        if isinstance(value, Mapping) and any(_is_tensor(entry) for entry in value.values())
    ]
    if len(holders) == 1:
        return holders[0]
    return next((key for key in holders if key == "state_dict"), None)


def _flatten(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, list | tuple | set) and any(
        _is_tensor(item) or isinstance(item, Mapping | list | tuple) for item in value
    ):
        items = enumerate(value)
    else:
        yield name, value
        return
    if depth >= _MAX_DEPTH:
        raise ProblemError("entries nest too deeply", key=name)
    for key, item in items:
        yield from _flatten(f"{name}.{key}" if name else str(key), item, depth + 1)


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _plain(name: str, tensor: Any) -> Any:
    """The tensor without its gradient; refused if its values are not simply stored numbers."""
    import torch

    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise ProblemError(f"not an ordinary tensor: {type(tensor).__name__}", key=name)
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        kind = f"{tensor.layout}, {tensor.dtype} on {tensor.device.type}"
        raise ProblemError(f"not an ordinary tensor: {kind}", key=name)
    if _dtype(tensor) not in _NAMES:
        raise ProblemError(f"a dtype that is not read: {_dtype(tensor)}", key=name)
    return tensor.detach().resolve_neg()


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _write(tensors: Mapping[str, Any]) -> None:
    """One tensor at a time: safetensors' own writer wants all of them in memory, none shared."""
    import torch

    header, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[_dtype(tensor)],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    with open(TENSORS, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            if tensor.numel():
                file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
