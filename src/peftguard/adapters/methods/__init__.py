"""PEFT methods: those with an exact low-rank update as `Method`s, all others by name."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from peftguard.adapters.methods.adalora import AdaLora
from peftguard.adapters.methods.base import Method, ModuleParts
from peftguard.adapters.methods.loha import LoHa
from peftguard.adapters.methods.lokr import LoKr
from peftguard.adapters.methods.lora import Lora
from peftguard.adapters.methods.mixed import Mixed
from peftguard.adapters.methods.peft_types import (
    MIXABLE,
    PEFT_TYPES,
    method_of_modules,
    method_of_parts,
)
from peftguard.adapters.methods.vera import Vera, with_projections

__all__ = [
    "METHODS",
    "MIXTURES",
    "PEFT_TYPES",
    "method_of_modules",
    "method_of_parts",
    "prepared",
    "why_unsupported",
]

METHODS: dict[str, Method] = {
    method.peft_type: method for method in (Lora(), AdaLora(), LoHa(), LoKr(), Vera())
}
"""By `peft_type`."""

MIXTURES: dict[str, Method] = {
    mixed.peft_type: mixed
    for size in range(2, len(MIXABLE) + 1)
    for names in combinations(sorted(MIXABLE), size)
    if (mixed := Mixed([METHODS[name] for name in names]))
}
"""By the `peft_type` of each, as `LOKR+LORA`: found in files, never declared by a config."""


def why_unsupported(peft_type: str) -> str:
    """Why a method has no exact update here, as a predicate: "acts on the base weight, ..."."""
    method = PEFT_TYPES.get(peft_type)
    return method.why if method else "is no method of PEFT that is known here"


def prepared(
    peft_type: str, modules: Mapping[str, ModuleParts], config: Mapping[str, Any]
) -> Mapping[str, ModuleParts]:
    """All modules of an adapter, as its method wants them: VeRA's must know of one another."""
    return with_projections(modules, config) if peft_type == "VERA" else modules
