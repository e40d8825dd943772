"""The one value that travels: a module's weight update, as low-rank factors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
Exactness = Literal["exact", "direction"]

_FIRST_INDEX = re.compile(r"^(?P<layer>(?:[^.]*\.)*?(?P<index>\d+))(?:\.(?P<role>.+))?$")


class Place(NamedTuple):
    """Where a module stands in its model, from its dotted path.

    Args:
        layer: path up to the first index (`model.layers.3`); None without one.
        number: that index.
        role: the rest (`self_attn.q_proj`), or the whole path where there is none.
    """

    layer: str | None
    number: int | None
    role: str


def place_of(module: str) -> Place:
    """Read a module's path."""
    match = _FIRST_INDEX.match(module)
    if match is None:
        return Place(None, None, module)
    return Place(match["layer"], int(match["index"]), match["role"] or match["layer"])


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """The change that an adapter makes to one weight matrix, acting as `y += delta @ x`.

    `delta = scale * kron(left, B @ A)`, where `left` is the 1x1 identity for every method but LoKr.
    The product is never formed. A factorisation is not unique (`A -> M A`, `B -> B M^-1` is the
    same update), so nothing downstream may look at A or B alone.

    Args:
        module: dotted path in the base model, without PEFT's `base_model.model.` prefix.
        A: (r, in) float32 or float64.
        B: (out, r) of A's dtype.
        scale: what multiplies the product (alpha / r and its variants).
        exactness: `exact`, or `direction` where the full change also needs the base weight (DoRA).
        left: left factor of a Kronecker product (LoKr), as (m, n); None means absent.
    """

    module: str
    A: FloatArray
    B: FloatArray
    scale: float = 1.0
    exactness: Exactness = "exact"
    left: FloatArray | None = None

    @property
    def rank(self) -> int:
        """Inner dimension of the factorisation; the true rank may be lower."""
        inner = int(self.A.shape[0])
        return inner if self.left is None else inner * min(self.left.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the update."""
        out, into = int(self.B.shape[0]), int(self.A.shape[1])
        if self.left is None:
            return out, into
        return out * int(self.left.shape[0]), into * int(self.left.shape[1])

    @property
    def layer(self) -> str | None:
        """Path up to the first index (`model.layers.3`, `encoder.block.0`), None without one."""
        return place_of(self.module).layer

    @property
    def role(self) -> str:
        """What the module is within its layer (`self_attn.q_proj`), or the whole path."""
        return place_of(self.module).role
