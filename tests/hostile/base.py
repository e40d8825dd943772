"""What a hostile file is, to those who write them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

MARKER = "executed"
"""Created beside a pickle whose code has run; it must never appear."""

MIB = 1 << 20
Write = Callable[[Path], None]


class HostileFile(NamedTuple):
    """What `write(path)` writes gives `code` when read: an error, or a finding if it `loads`."""

    file_name: str
    write: Write
    code: str
    loads: bool = False
    needs: str | None = None


def holding(data: bytes) -> Write:
    """Write these bytes."""
    return partial(_write, data)


def _write(data: bytes, path: Path) -> None:
    path.write_bytes(data)
