"""An open file whose tensors lie at known offsets: what every format comes down to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.containers.dtypes import decode
from peftguard.adapters.plainfile import PlainFile
from peftguard.errors import LimitExceeded
from peftguard.findings import Finding
from peftguard.limits import Deadline

Decode = Callable[[NDArray[np.uint8], TensorInfo], NDArray[np.generic]]


class Stored(NamedTuple):
    """Where in the file a tensor's bytes start, and what makes an array of them."""

    info: TensorInfo
    offset: int
    decode: Decode = decode


class StoredTensors:
    """A `Container` over one file, whose tensors must already be known to lie inside it."""

    def __init__(
        self,
        file: PlainFile,
        stored: Sequence[Stored],
        deadline: Deadline,
        *,
        format: str,
        metadata: Mapping[str, str],
    ) -> None:
        self.path: Path = file.path
        self.format = format
        self.metadata = metadata
        self.tensors: Mapping[str, TensorInfo] = {item.info.name: item.info for item in stored}
        self.findings: tuple[Finding, ...] = ()
        self._file, self._deadline = file, deadline
        self._stored = {item.info.name: item for item in stored}

    def read(self, name: str) -> NDArray[np.generic]:
        """One tensor; at most its bytes as stored and the result are in memory at a time.

        Raises:
            MalformedFile: the file has become shorter.
            LimitExceeded: out of time, or the tensor does not fit in memory.
        """
        self._deadline.check(f"reading {self._file.name}")
        info, offset, decode = self._stored[name]
        try:
            raw = np.empty(info.n_bytes, np.uint8)
            self._file.read_into(offset, raw.data)
            return decode(raw, info)
        except MemoryError:
            raise LimitExceeded(
                "the tensor does not fit in memory",
                file=self._file.name,
                key=info.name,
                found=f"{info.n_bytes} bytes",
            ) from None

    def place(self, name: str) -> range:
        """Where in the file a tensor's bytes are."""
        info, offset, _ = self._stored[name]
        return range(offset, offset + info.n_bytes)

    def close(self) -> None:
        """Release the file."""
        self._file.close()
