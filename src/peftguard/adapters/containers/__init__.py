"""Weight files of every format, opened alike: headers are checked here, tensors read on demand."""

from __future__ import annotations

from pathlib import Path

from peftguard.adapters.containers.archive import Archive
from peftguard.adapters.containers.base import Container
from peftguard.adapters.containers.gguf_file import open_gguf
from peftguard.adapters.containers.magic import HEAD_BYTES, Kind, kind_of, not_weights
from peftguard.adapters.containers.npz import SUFFIX, open_npz
from peftguard.adapters.containers.safetensors_file import open_safetensors
from peftguard.adapters.containers.shards import Shards
from peftguard.adapters.containers.stored import StoredTensors
from peftguard.adapters.containers.torch_pickle import (
    convert,
    is_torch_archive,
    scan_archive,
    scan_stream,
    scan_unknown,
)
from peftguard.adapters.plainfile import PlainFile
from peftguard.errors import LimitExceeded, TargetNotFound
from peftguard.findings import Finding, Severity, found
from peftguard.limits import Deadline, Limits

__all__ = ["open_container"]

_PROMISED = {
    ".safetensors": "safetensors",
    ".bin": "pickle",
    ".pt": "pickle",
    ".pth": "pickle",
    ".ckpt": "pickle",
    ".gguf": "gguf",
    ".npz": "npz",
}


def open_container(paths: tuple[Path, ...], limits: Limits, deadline: Deadline) -> Container:
    """Open a weight file, or the shards of one adapter as one; formats go by content, not suffix.

    Raises:
        TargetNotFound: a file cannot be opened.
        MalformedFile: a file breaks its format, holds no weights, or shards repeat a tensor.
        UnsafeFile: a pickle imports what would run code, or what torch's loader refuses.
        LimitExceeded: a limit was reached.
        MissingExtra: the format needs a package that is not installed.
    """
    if not paths:
        raise TargetNotFound("no weight file was given")
    opened: list[Container] = []
    try:
        for path in paths:
            opened.append(_open(path, limits, deadline))
        return opened[0] if len(opened) == 1 else Shards(opened, limits)
    except BaseException:
        for container in opened:
            container.close()
        raise


def _open(path: Path, limits: Limits, deadline: Deadline) -> StoredTensors:
    file = PlainFile(path)
    try:
        deadline.check(f"opening {file.name}")
        if file.size > limits.max_file_bytes:
            raise LimitExceeded(
                "the file is too large",
                file=file.name,
                expected=f"at most {limits.max_file_bytes} bytes",
                found=f"{file.size} bytes",
            )
        container = _as_what_it_is(file, limits, deadline)
    except BaseException:
        file.close()
        raise
    container.findings += _suffix_findings(file, container.format)
    return container


def _as_what_it_is(file: PlainFile, limits: Limits, deadline: Deadline) -> StoredTensors:
    kind = kind_of(file.head(HEAD_BYTES), file=file.name)
    if kind is Kind.SAFETENSORS:
        return open_safetensors(file, limits, deadline)
    if kind is Kind.GGUF:
        return open_gguf(file, limits, deadline)
    if kind is Kind.ZIP:
        return _zip(file, limits, deadline)
    if kind is Kind.PICKLE:
        scan_stream(file, limits, deadline)
        return convert(file, limits, deadline)
    scan_unknown(file, limits, deadline)


def _zip(file: PlainFile, limits: Limits, deadline: Deadline) -> StoredTensors:
    archive = Archive(file, limits)
    if archive.members and all(member.filename.endswith(SUFFIX) for member in archive.members):
        return open_npz(archive, limits, deadline)
    scan_archive(archive, limits, deadline)
    if not is_torch_archive(archive):
        raise not_weights(file.name, "a zip archive")
    return convert(file, limits, deadline)


def _suffix_findings(file: PlainFile, format: str) -> tuple[Finding, ...]:
    promised = _PROMISED.get(file.path.suffix.lower(), format)
    if promised == format:
        return ()
    message = f"the suffix promises {promised}, the content is {format}"
    # Loaders that go by content are no worse off; those that go by suffix just fail.
    severity = Severity.LOW if format == "safetensors" else None
    return (found("file.wrong-magic", message, file=file.name, severity=severity),)
