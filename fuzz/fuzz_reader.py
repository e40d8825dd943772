"""Fuzz the readers: any bytes give a container, a JSON object, or one of our errors.

    pip install atheris
    python fuzz/fuzz_reader.py [corpus folder] -max_total_time=60

Pickles stop where the child process would start: fuzzing torch is torch's business.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["peftguard"]):
    from peftguard.adapters.containers import open_container, torch_pickle
    from peftguard.adapters.jsonfile import read_json
    from peftguard.errors import MissingExtra, PeftGuardError
    from peftguard.limits import Deadline, Limits

_LIMITS = Limits(max_header_bytes=1 << 16, max_tensors=1000, max_config_bytes=1 << 16)
_SUFFIXES = (".safetensors", ".bin", ".gguf", ".npz")
_FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))


def _no_child(*arguments: object) -> None:
    raise MissingExtra("fuzzing", "torch")


def one_input(data: bytes) -> None:
    """The first byte picks the suffix, which must change nothing but a finding."""
    if not data:
        return
    path = _FOLDER / f"a{_SUFFIXES[data[0] % len(_SUFFIXES)]}"
    path.write_bytes(data[1:])
    for read in (_read_tensors, _read_json):
        try:
            read(path)
        except PeftGuardError as error:
            if not str(error).isprintable():
                raise AssertionError(f"unprintable: {error!r}") from error


def _read_tensors(path: Path) -> None:
    container = open_container((path,), _LIMITS, Deadline(30))
    try:
        for name, info in container.tensors.items():
            if container.read(name).shape != info.shape:
                raise AssertionError(f"{name!r} has another shape than declared")
    finally:
        container.close()


def _read_json(path: Path) -> None:
    read_json(path.read_bytes(), file="a.json", limits=_LIMITS)


if __name__ == "__main__":
    torch_pickle._run_child = _no_child
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
