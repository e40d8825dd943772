"""An adapter in memory as detectors see it: every module's update as two factors, nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.methods.factors import check_size
from peftguard.adapters.update import Update
from peftguard.errors import MalformedFile
from peftguard.features.singular import decomposed
from peftguard.limits import Limits

if TYPE_CHECKING:
    from peftguard.adapters.adapter import Adapter
    from peftguard.trigger.report import TriggerScores

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_ROUNDING = 1e-10
"""Singular values below this share of the largest are zeros."""


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """One module's update B @ A; the scale and a Kronecker factor are folded in.

    Args:
        B: (out, r) float32.
        A: (r, in) float32.
    """

    B: Float32
    A: Float32

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the update."""
        return int(self.B.shape[0]), int(self.A.shape[1])


@dataclass(frozen=True, eq=False)
class Weights:
    """What a detector may know of an adapter. Compared by identity.

    Args:
        name: for messages.
        modules: factors by dotted module path, in file order.
        base_model: as the adapter claims it.
        peft_type: name in peft's `PeftType`.
        rank: largest rank among the modules, None if its method has no such thing.
        searched: what a search for a trigger on the base model came to; None without one.
    """

    name: str
    modules: Mapping[str, Factors]
    base_model: str | None = None
    peft_type: str = "LORA"
    rank: int | None = None
    searched: TriggerScores | None = None

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of every module."""
        return {module: factors.shape for module, factors in self.modules.items()}


def weights_of(adapter: Adapter) -> Weights:
    """Read every update of an open adapter into memory.

    Raises:
        MalformedFile: an update has NaN or infinite entries, or a module has two updates.
        LimitExceeded: an update is too large.
        InputError: as `Adapter.updates`.
    """
    updates = adapter.updates()
    return weights_from(
        updates,
        name=adapter.source.target,
        base_model=adapter.base_model,
        peft_type=adapter.peft_type,
        rank=adapter.rank,
    )


def weights_from(
    updates: Iterable[Update],
    *,
    name: str,
    base_model: str | None = None,
    peft_type: str = "LORA",
    rank: int | None = None,
) -> Weights:
    """The same of updates that are in memory already. Raises as `weights_of`."""
    modules: dict[str, Factors] = {}
    for update in updates:
        if update.module in modules:
            raise MalformedFile("a module has several updates", file=name, key=update.module)
        factors = factors_of(update)
        if not (np.isfinite(factors.A).all() and np.isfinite(factors.B).all()):
            raise MalformedFile("weights are not finite", file=name, key=update.module)
        modules[update.module] = factors
    return Weights(name, modules, base_model, peft_type, rank)


def factors_of(update: Update, most_bytes: int = Limits().max_module_bytes) -> Factors:
    """The update in its one balanced form: B = U sqrt(S), A = sqrt(S) V^T of its singular values.

    Whatever M it was stored with (A -> M A, B -> B M^-1), whatever zeros pad its rank and however
    its size is split between factors and scale, the same factors come out, to rounding. A Kronecker
    product is multiplied out: kron(L, B A) = kron(L, B) kron(I, A).

    Raises:
        LimitExceeded: a Kronecker product would take more than `most_bytes`.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # found by whoever asks whether it is finite
        B: Float64 = update.B.astype(np.float64)
        A: Float64 = update.A.astype(np.float64)
        if update.left is not None:
            left = update.left.astype(np.float64)
            high, wide = left.shape
            shapes = (high * len(B), wide * len(A)), (wide * len(A), wide * A.shape[1])
            check_size(update.module, *shapes, item_bytes=8, most_bytes=most_bytes)
            B = np.asarray(np.kron(left, B), np.float64)
            A = np.asarray(np.kron(np.eye(left.shape[1]), A), np.float64)
        if np.isfinite(B).all() and np.isfinite(A).all() and np.isfinite(update.scale):
            B, A = _balanced(B, A, update.scale)
        return Factors(B.astype(np.float32), A.astype(np.float32))


def _balanced(B: Float64, A: Float64, scale: float) -> tuple[Float64, Float64]:
    """Factors of `scale * B @ A` with orthogonal columns and rows of equal norms, largest first."""
    left, values, right = decomposed(B, A)
    kept = values > _ROUNDING * values.max(initial=0.0)
    root = np.sqrt(values[kept]) * np.sqrt(abs(scale))
    sign = -1.0 if scale < 0 else 1.0
    return sign * left[:, kept] * root, root[:, None] * right[kept]
