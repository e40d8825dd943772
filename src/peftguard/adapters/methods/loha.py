"""LoHa: the element-wise product of two low-rank matrices, as one exact factorisation.

(B1 A1) * (B2 A2) = B A with B (out, r1 * r2) the products of each row's entries and A (r1 * r2, in)
those of each column's (the face-splitting product), so the dense matrix is never formed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.methods.factors import (
    check_size,
    exactness,
    flattened,
    misfit,
    need,
    pair,
    pointwise,
)
from peftguard.adapters.methods.scaling import low_rank_scale
from peftguard.adapters.update import FloatArray, Update


class LoHa:
    """Two of `hada_w1_a` (out, r) and `hada_w1_b` (r, in); Tucker factors if there is `hada_t1`."""

    peft_type = "LOHA"
    parts = frozenset(
        {f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")}
        | {"alpha", "lora_magnitude_vector"}
    )

    def updates(self, module: ModuleParts, config: Mapping[str, Any]) -> Iterator[Update]:
        """One update of rank r1 * r2.

        Raises:
            MalformedFile: a factor is missing, or the shapes do not fit.
            LimitExceeded: the factors of rank r1 * r2 are too large.
            InputError: a config value of the wrong type, or a pattern that was not run.
        """
        A1, B1 = _half(module, "1")
        A2, B2 = _half(module, "2")
        if A1.shape[1] != A2.shape[1] or B1.shape[0] != B2.shape[0]:
            raise misfit(module, "two halves of one shape", f"{A1.shape}, {A2.shape}")
        rank = A1.shape[0] * A2.shape[0]
        check_size(module.module, (rank, A1.shape[1]), (B1.shape[0], rank))
        A = (A1[:, None] * A2[None]).reshape(rank, -1)
        B = (B1[:, :, None] * B2[:, None]).reshape(-1, rank)
        scale = low_rank_scale(module, config, A1.shape[0], alpha_key="alpha")
        yield Update(module.module, A, B, scale, exactness(module))


def _half(module: ModuleParts, half: str) -> tuple[FloatArray, FloatArray]:
    a, b, t = f"hada_w{half}_a", f"hada_w{half}_b", f"hada_t{half}"
    if t in module.info:
        return tucker(module, t, a, b)
    return pair(
        flattened(need(module, b), module, b), pointwise(need(module, a), module, a), module
    )


def tucker(module: ModuleParts, t: str, a: str, b: str) -> tuple[FloatArray, FloatArray]:
    """A (r, in * prod(kernel)) and B (out, r) from a core and the factors of its first two axes.

    Args:
        module: whose parts they are.
        t: core (r, r', *kernel).
        a: factor (r, out).
        b: factor (r', in).
    """
    core, left, right = need(module, t), need(module, a, 2), need(module, b, 2)
    if core.ndim < 3 or core.shape[:2] != (left.shape[0], right.shape[0]) or 0 in core.shape:
        raise misfit(module, f"{t} of shape (r, r, ..)", str(core.shape))
    kernel = core.reshape(*core.shape[:2], -1)
    check_size(module.module, (core.shape[0], right.shape[1], kernel.shape[2]))
    A = np.einsum("ijk,jn->ink", kernel, right).reshape(core.shape[0], -1)
    return pair(A, np.ascontiguousarray(left.T), module)
