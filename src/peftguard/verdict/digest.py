"""Hashes of an adapter's files: what a result is about, and the key of the result cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from peftguard.adapters.source import Source
from peftguard.limits import Deadline
from peftguard.results import FileDigest

_CHUNK = 1 << 20


def digest_files(source: Source, paths: Sequence[Path], deadline: Deadline) -> list[FileDigest]:
    """SHA-256 of each file in order.

    Raises:
        LimitExceeded: out of time.
        OSError: a file went away or cannot be read.
    """
    return [_digest(source, path, deadline) for path in paths]


def joint_hash(digests: Sequence[FileDigest]) -> str | None:
    """The hash of a single file, or the hash of the joined hashes of several; None for none."""
    if len(digests) <= 1:
        return digests[0].sha256 if digests else None
    joined = "".join(digest.sha256 for digest in digests)
    return hashlib.sha256(joined.encode()).hexdigest()


def _digest(source: Source, path: Path, deadline: Deadline) -> FileDigest:
    hasher = hashlib.sha256()
    size = 0
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            deadline.check(f"hashing {path.name}")
            hasher.update(buffer[:count])
            size += count
    return FileDigest(path=source.relative(path), n_bytes=size, sha256=hasher.hexdigest())
