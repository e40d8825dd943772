"""Several files that hold one adapter, read as if they were one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.containers.base import Container, TensorInfo
from peftguard.adapters.containers.names import shown, too_many
from peftguard.errors import MalformedFile
from peftguard.findings import Finding
from peftguard.limits import Limits


class Shards:
    """A `Container` over the containers of an adapter's shards, in their order.

    Raises:
        MalformedFile: two shards have a tensor of the same name.
        LimitExceeded: together they have more than `max_tensors`.
    """

    def __init__(self, parts: Sequence[Container], limits: Limits) -> None:
        self._parts = parts
        self._owner: dict[str, Container] = {}
        for part in parts:
            for name in part.tensors:
                self._claim(name, part)
        if len(self._owner) > limits.max_tensors:
            raise too_many(parts[0].path.name, len(self._owner), limits)
        self.path = parts[0].path
        self.format = parts[0].format
        self.metadata: Mapping[str, str] = {
            key: text for part in reversed(parts) for key, text in part.metadata.items()
        }
        self.tensors: Mapping[str, TensorInfo] = {
            name: owner.tensors[name] for name, owner in self._owner.items()
        }
        self.findings: tuple[Finding, ...] = tuple(f for part in parts for f in part.findings)

    def read(self, name: str) -> NDArray[np.generic]:
        """One tensor, from whichever shard has it. Raises as that shard does."""
        return self._owner[name].read(name)

    def close(self) -> None:
        """Release all files."""
        for part in self._parts:
            part.close()

    def _claim(self, name: str, part: Container) -> None:
        if name in self._owner:
            raise MalformedFile(
                "two shards have the same tensor",
                file=part.path.name,
                key=shown(name),
                found=self._owner[name].path.name,
                code="file.duplicate-key",
            )
        self._owner[name] = part
