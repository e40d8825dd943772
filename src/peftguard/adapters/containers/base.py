"""What every weight file looks like once opened: named tensors, read one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from peftguard.findings import Finding


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as its file declares it: safetensors dtype name (`F16`), shape, size in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    n_bytes: int

    @property
    def n_parameters(self) -> int:
        """Product of the shape; 1 for a scalar."""
        return int(np.prod(self.shape, dtype=object)) if self.shape else 1


class Container(Protocol):
    """An open weight file. Opening reads the header only; `read` reads one tensor."""

    path: Path
    """The file the user gave, also where a converted copy is read in its place."""
    format: str
    """`safetensors`, `pickle`, `gguf` or `npz`."""
    metadata: Mapping[str, str]
    """Free text the file carries about itself."""
    tensors: Mapping[str, TensorInfo]
    """In file order."""
    findings: tuple[Finding, ...]
    """What was noticed while opening (a pickle, an import that is harmless but odd)."""

    def read(self, name: str) -> NDArray[np.generic]:
        """One tensor. Half precision and 8-bit floats come as float32, other dtypes unchanged.

        Raises:
            MalformedFile: the file has become shorter than its header says.
        """
        ...

    def close(self) -> None:
        """Release the file; reading afterwards is an error."""
        ...
