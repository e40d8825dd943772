"""What a PEFT method does: the parts of one module and the config in, its update out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.update import FloatArray, Update


@dataclass(frozen=True, slots=True)
class ModuleParts:
    """The tensors of one adapted module, by part name; `read(part)` loads one as float32/float64.

    Shapes in `info` and arrays from `read` are in PEFT's orientation, however they are stored.
    """

    module: str
    info: Mapping[str, TensorInfo]
    read: Callable[[str], FloatArray]
    shared: Mapping[str, Callable[[], FloatArray]]
    """Tensors common to all modules, by part name (`vera_A`, `vera_B`)."""


class Method(Protocol):
    """One PEFT method with an exact low-rank update."""

    peft_type: str
    """Name in peft's `PeftType` enum, e.g. `LORA`."""
    parts: frozenset[str]
    """Part names it explains; others are reported as unexplained."""

    def updates(self, module: ModuleParts, config: Mapping[str, Any]) -> Iterator[Update]:
        """The update of one module: one item, or one per expert for MoE parameters.

        Raises:
            MalformedFile: a part is missing or the shapes do not fit.
            UnsupportedAdapter: the update is not defined by these tensors alone.
        """
        ...
