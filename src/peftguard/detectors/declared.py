"""What a detector was calibrated on, as its card declares it, against an adapter's headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from peftguard.adapters.filenames import printable

if TYPE_CHECKING:
    from peftguard.adapters.adapter import Adapter

_CACHED = re.compile(r"models--(?P<id>[^/]+)/snapshots/", re.ASCII)


class Module(BaseModel):
    """A module that adapters may change, and its width."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    name: str = Field(max_length=1024)
    n_out: int = Field(gt=0)
    n_in: int = Field(gt=0)


class CoverageCard(BaseModel):
    """What a detector was calibrated on."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    bases: list[str] = Field(min_length=1, description="Base models, as their adapters name them.")
    methods: list[str] = Field(min_length=1, description="Names in peft's PeftType; DORA apart.")
    ranks: tuple[int, int] | None = Field(description="Least and largest.")
    modules: list[Module] = Field(min_length=1)
    module_sets: list[list[int]] = Field(
        min_length=1, description="Modules that one adapter changed, as places in `modules`."
    )
    tasks: list[str] = []
    datasets: list[str] = []
    attacks: list[str] = Field([], description="Of the backdoored adapters.")
    n_known: int = Field(gt=0, description="Adapters that distances are measured to.")
    n_held_out: int = Field(gt=0, description="Adapters behind the limits.")
    figure_limit: float
    direction_limit: float
    level: float = Field(
        ge=0, le=1, description="Share of fresh benign adapters that both limits keep inside."
    )

    @property
    def line(self) -> str:
        """The coverage in one line."""
        ranks = f", rank {self.ranks[0]} to {self.ranks[1]}" if self.ranks else ""
        of = f" of {', '.join(self.datasets)}" if self.datasets else ""
        n = f"{len(self.modules)} module{'' if len(self.modules) == 1 else 's'}"
        return f"{', '.join(self.methods)} on {', '.join(self.bases)}{ranks}, {n}{of}"

    @property
    def sites(self) -> list[tuple[str, tuple[int, int]]]:
        """The places that adapters may change."""
        return [(one.name, (one.n_out, one.n_in)) for one in self.modules]

    def outside(self, adapter: Adapter) -> str | None:
        """Why an open adapter lies outside, from its headers alone; None if they do not tell."""
        method = method_of(adapter)
        if method not in self.methods:
            return f"its method is {_said(method)}, calibrated on {_listed(self.methods)}"
        stacks = self._stacks()
        shapes = _header_shapes(adapter)
        plain = {name: shape for name, shape in shapes.items() if name not in stacks}
        return self.undeclared(adapter.base_model, adapter.rank) or self.strange(plain)

    def _stacks(self) -> set[str]:
        """Names under which several modules may be stored as one, as a stack of experts is."""
        names = {one.name for one in self.modules}
        parts = [name.split(".") for name in names]
        above = {".".join(own[:end]) for own in parts for end in range(1, len(own))}
        return above - names

    def undeclared(self, base: str | None, rank: int | None) -> str | None:
        """Why such a base model and rank lie outside; None if they lie inside."""
        if base is None:
            return "it does not say what its base model is"
        if base_among(base, self.bases) is None:
            return f"its base model is {_said(base)}, calibrated on {_listed(self.bases)}"
        low, high = self.ranks or (0, 0)
        if rank is not None and not low <= rank <= high:
            return f"its rank is {rank}, calibrated on {low} to {high}"
        return None

    def strange(self, shapes: Mapping[str, tuple[int, int] | None]) -> str | None:
        """Why modules of these widths (None: any) lie outside; None if they lie inside."""
        known = {one.name: (one.n_out, one.n_in) for one in self.modules}
        for module, shape in shapes.items():
            if module not in known:
                return f"it changes {_said(module)}, which no calibration adapter does"
            if shape is not None and shape != known[module]:
                return f"its {_said(module)} is {shape}, calibrated on {known[module]}"
        return None

    def unseen_set(self, modules: Iterable[str]) -> str | None:
        """Why known modules lie outside when together; None if some adapter changed just these."""
        places = {one.name: place for place, one in enumerate(self.modules)}
        own = {places[module] for module in modules}
        if any(own == set(seen) for seen in self.module_sets):
            return None
        return f"it changes {len(own)} of {len(places)} modules, in no calibrated combination"


def method_of(adapter: Adapter) -> str:
    """The method as far as files tell: a name in peft's `PeftType`, or `DORA`."""
    has_magnitude = any("lora_magnitude_vector" in one.info for one in adapter.modules.values())
    return "DORA" if has_magnitude else adapter.peft_type


def base_among(claim: str, bases: Iterable[str]) -> str | None:
    """The one of `bases` that an adapter's claim means, None if it is another.

    Case does not count. A path or a bare name is compared by its last part; what it really is, the
    modules and their widths must confirm.
    """
    return next((base for base in bases if _same_base(claim, base)), None)


def _same_base(left: str, right: str) -> bool:
    (left, left_is_id), (right, right_is_id) = _base_key(left), _base_key(right)
    if left_is_id and right_is_id:
        return left == right
    return left.rpartition("/")[2] == right.rpartition("/")[2]


def _base_key(name: str) -> tuple[str, bool]:
    """The name in lower case, and whether it is a hub id `org/name`."""
    key = name.strip().replace("\\", "/").rstrip("/").lower()
    cached = _CACHED.search(key)
    if cached is not None:
        key = cached["id"].replace("--", "/")
    return key, key.count("/") == 1 and key[0] not in "./~"


def _header_shapes(adapter: Adapter) -> dict[str, tuple[int, int] | None]:
    """Shapes of the updates as headers give them; None where it takes the tensors to know."""
    shapes: dict[str, tuple[int, int] | None] = {}
    for name, module in adapter.modules.items():
        A, B = module.info.get("lora_A"), module.info.get("lora_B")
        plain = A is not None and B is not None and len(A.shape) == len(B.shape) == 2
        shapes[name] = (B.shape[0], A.shape[1]) if plain and A and B else None
    return shapes


def _said(text: str) -> str:
    """A stranger's text: bounded, without control characters."""
    shown = printable(text)
    return shown if len(shown) <= 80 else f"{shown[:79]}…"


def _listed(names: Sequence[str]) -> str:
    return " or ".join(map(_said, names[:4])) + (" or others" if len(names) > 4 else "")
