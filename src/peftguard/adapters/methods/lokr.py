"""LoKr: a Kronecker product of a small matrix and one that may be low-rank itself."""

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
from peftguard.adapters.methods.loha import tucker
from peftguard.adapters.methods.scaling import config_rank, low_rank_scale, owner
from peftguard.adapters.update import FloatArray, Update
from peftguard.errors import UnsupportedAdapter


class LoKr:
    """scale * kron(w1, w2), each stored whole or as two factors, w2 also with a Tucker core."""

    peft_type = "LOKR"
    parts = frozenset(
        {f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")}
        | {"alpha", "lora_magnitude_vector"}
    )

    def updates(self, module: ModuleParts, config: Mapping[str, Any]) -> Iterator[Update]:
        """One update, with w1 as `left` and w2 as `B @ A`.

        Raises:
            MalformedFile: a factor is missing, or the shapes do not fit.
            UnsupportedAdapter: a whole w2 for a one-dimensional convolution, which readers lay out
                differently.
            LimitExceeded: a factor is too large.
            InputError: a config value of the wrong type, or a pattern that was not run.
        """
        left = _left(module)
        A, B = _right(module)
        left = left.astype(A.dtype, copy=False)
        yield Update(module.module, A, B, _scale(module, config), exactness(module), left)


def _left(module: ModuleParts) -> FloatArray:
    if "lokr_w1" in module.info:
        _refuse_both(module, "lokr_w1", "lokr_w1_a", "lokr_w1_b")
        return flattened(need(module, "lokr_w1", 2), module, "lokr_w1")
    b, a = pair(
        flattened(need(module, "lokr_w1_b", 2), module, "lokr_w1_b"),
        pointwise(need(module, "lokr_w1_a", 2), module, "lokr_w1_a"),
        module,
    )
    check_size(module.module, (a.shape[0], b.shape[1]))
    return a @ b


def _right(module: ModuleParts) -> tuple[FloatArray, FloatArray]:
    if "lokr_w2" in module.info:
        _refuse_both(module, "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
        return _with_identity(need(module, "lokr_w2"), module)
    if "lokr_t2" in module.info:
        return tucker(module, "lokr_t2", "lokr_w2_a", "lokr_w2_b")
    return pair(
        flattened(need(module, "lokr_w2_b"), module, "lokr_w2_b"),
        pointwise(need(module, "lokr_w2_a"), module, "lokr_w2_a"),
        module,
    )


def _refuse_both(module: ModuleParts, whole: str, *factors: str) -> None:
    if not module.info.keys().isdisjoint(factors):
        raise misfit(module, f"{whole} or its factors", ", ".join(module.info))


def _with_identity(w2: FloatArray, module: ModuleParts) -> tuple[FloatArray, FloatArray]:
    """A whole matrix as a product with the smaller identity."""
    if w2.ndim == 3:
        raise UnsupportedAdapter(
            "LoKr with a whole w2 for a one-dimensional convolution", key=module.module
        )
    matrix = flattened(w2, module, "lokr_w2")
    out, into = matrix.shape
    identity = min(out, into)
    check_size(module.module, (identity, identity))
    if out <= into:
        return matrix, np.eye(identity, dtype=matrix.dtype)
    return np.eye(identity, dtype=matrix.dtype), matrix


def _scale(module: ModuleParts, config: Mapping[str, Any]) -> float:
    """With two whole halves there is no rank, and an `alpha` tensor has no effect (LyCORIS)."""
    for part in ("lokr_w2_b", "lokr_w1_b"):
        if part in module.info:
            return low_rank_scale(module, config, module.info[part].shape[0], alpha_key="alpha")
    if "alpha" in module.info:
        return 1.0
    rank = config_rank(owner(module.module), config)
    return low_rank_scale(module, config, rank, alpha_key="alpha")
