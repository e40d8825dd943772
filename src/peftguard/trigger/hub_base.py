"""Of a base model on the hub only what its words need, brought by ranges of bytes.

A base may have hundreds of gigabytes, of which the first stage needs an embedding and a few norms.
Each of its safetensors files is written with its header and these tensors in their places; what was
not asked for is a hole, which takes no disk and reads as zeros.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from platformdirs import user_cache_path

from peftguard.adapters.containers.safetensors_file import open_safetensors
from peftguard.adapters.plainfile import PlainFile
from peftguard.errors import LimitExceeded, MalformedFile
from peftguard.features.first_layer import is_needed
from peftguard.limits import MIB, Deadline, Limits

Fetch = Callable[[int, int], bytes]
"""Bytes of a remote file by offset and count."""

_BESIDE = ("config.json", "tokenizer.json")
_LENGTH = 8
_AT_ONCE = 16 * MIB
_TIMEOUT_S = 30.0


def brought(hub_id: str) -> Path:
    """A folder with what `read_vocabulary` reads of a base; kept for the next time.

    Where the hub does not answer it is the one that was brought last.

    Raises:
        PeftGuardError: a file of it is none that can be read.
        Exception: whatever the hub's client raises.
    """
    from huggingface_hub import HfApi

    bases = user_cache_path("peftguard") / "bases"
    bases.mkdir(parents=True, exist_ok=True)
    begins = f"{hub_id.replace('/', '--')}@"
    try:
        info = HfApi().repo_info(hub_id, files_metadata=True, timeout=_TIMEOUT_S)
    except Exception:  # the client raises errors of several libraries
        kept = [one for one in bases.iterdir() if one.name.startswith(begins)]
        if not kept:
            raise
        return max(kept, key=lambda one: one.stat().st_mtime)
    folder = bases / f"{begins}{info.sha}"
    if not folder.is_dir():
        _bring(hub_id, info, folder)
    return folder


def _bring(hub_id: str, info: Any, folder: Path) -> None:
    """All files of one revision, at once or not at all."""
    from huggingface_hub import hf_hub_download

    sizes = {one.rfilename: one.size for one in info.siblings or []}
    with TemporaryDirectory(dir=folder.parent) as beside:
        begun = Path(beside, "base")
        begun.mkdir()
        for name in (one for one in _BESIDE if one in sizes):
            shutil.copy(hf_hub_download(hub_id, name, revision=info.sha), begun / name)
        for name, size in sizes.items():
            if name.endswith(".safetensors") and Path(name).name == name and size is not None:
                write_part(begun / name, size, _ranges(hub_id, name, info.sha))
        if not folder.is_dir():  # as another process may have brought it meanwhile
            begun.rename(folder)


def write_part(path: Path, size: int, fetch: Fetch) -> None:
    """A safetensors file of which only the header and the needed tensors are there.

    Args:
        path: where.
        size: of the whole, in bytes.
        fetch: gives its bytes.

    Raises:
        MalformedFile: it is no safetensors file.
        LimitExceeded: its header is too large.
    """
    limits = Limits()
    length = int.from_bytes(fetch(0, _LENGTH), "little")
    if length > min(limits.max_header_bytes, size - _LENGTH):
        raise LimitExceeded("the header is too large", file=path.name, found=f"{length} bytes")
    with path.open("wb") as part:
        part.write(fetch(0, _LENGTH + length))
        part.truncate(size)
        part.flush()
        file = PlainFile(path)
        with closing(open_safetensors(file, limits, Deadline(limits.max_seconds))) as whole:
            for place in (whole.place(name) for name in whole.tensors if is_needed(name)):
                for start in range(place.start, place.stop, _AT_ONCE):
                    part.seek(start)
                    part.write(fetch(start, min(_AT_ONCE, place.stop - start)))


def _ranges(hub_id: str, name: str, revision: str) -> Fetch:
    """Of a file on the hub, which answers no more than was asked for."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

    url, headers = hf_hub_url(hub_id, name, revision=revision), build_hf_headers()

    def fetch(offset: int, count: int) -> bytes:
        asked = {**headers, "Range": f"bytes={offset}-{offset + count - 1}"}
        response = http_backoff("GET", url, headers=asked, timeout=_TIMEOUT_S)
        hf_raise_for_status(response)
        body: bytes = response.content
        if response.status_code != 206 or len(body) != count:
            raise MalformedFile(
                "the hub does not give parts of it",
                file=name,
                expected=f"{count} bytes",
                found=f"{len(body)} (status {response.status_code})",
            )
        return body

    return fetch
