"""LoRA: y += scale * B A x, for linear, convolution and embedding layers, and stacks of experts.

`fan_in_fan_out` only says how the base stores its weight: as a map of x the update is the same.
Under `layer_replication` modules are numbered by the new stack of layers, and stay so.
`lora_B.bias` is no part of the weight's update.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.methods.config_values import flag
from peftguard.adapters.methods.experts import parameter_names, split_experts, unstack_experts
from peftguard.adapters.methods.factors import (
    exactness,
    flattened,
    misfit,
    need,
    pair,
    pointwise,
)
from peftguard.adapters.methods.lora_variants import (
    block_diagonal,
    blocks_on_diagonal,
    refuse_undefined,
)
from peftguard.adapters.methods.scaling import low_rank_scale
from peftguard.adapters.update import FloatArray, Update
from peftguard.errors import MalformedFile

_FAMILIES = ("lora", "lora_embedding", "experts_lora")


class Lora:
    """Plain LoRA and the variants whose update the two factors define.

    A convolution's A (r, in, *kernel) acts on patches of the input, flattened; with `lora_mid`
    (LoCon) it is the composition of both. DoRA's magnitude needs the base weight, so the update is
    its direction only.
    """

    peft_type = "LORA"
    parts = frozenset(
        {f"{family}_{factor}" for family in _FAMILIES for factor in "AB"}
        | {"lora_B.bias", "lora_magnitude_vector", "lora_mid", "alpha", "lora_velora_embed"}
    )

    def updates(self, module: ModuleParts, config: Mapping[str, Any]) -> Iterator[Update]:
        """One update, or one an expert, as `module.0`, `module.1`, ...

        Raises:
            UnsupportedAdapter: an initialisation or variant whose change the factors do not define.
            MalformedFile: a factor is missing, or the shapes do not fit.
            InputError: a config value of the wrong type, or a pattern that was not run.
        """
        refuse_undefined(config)
        exact = "direction" if flag(config, "use_dora") else exactness(module)
        family = _family(module)
        parameters = parameter_names(module.module, config) if family == "lora" else []
        if parameters or family == "experts_lora":
            experts = (
                split_experts(module, config, parameters)
                if parameters
                else unstack_experts(module, config)
            )
            for name, A, B, scale in experts:
                yield Update(name, A, B, scale, exact)
            return
        A, B = _embedding(module) if family == "lora_embedding" else _layer(module, config)
        yield Update(module.module, A, B, low_rank_scale(module, config, A.shape[0]), exact)


def difference(final: Update, initial: Update) -> Update:
    """`final` minus `initial`, exactly, as one update of the sum of their ranks.

    What a PiSSA, OLoRA, CorDA or LoRA-GA adapter changes is what it stores less what it started
    from.

    Raises:
        MalformedFile: the two are of different modules or shapes.
    """
    if (final.module, final.shape) != (initial.module, initial.shape):
        raise MalformedFile(
            "the initial adapter does not fit",
            key=final.module,
            expected=f"{final.module} {final.shape}",
            found=f"{initial.module} {initial.shape}",
            code="integrity.shape-mismatch",
        )
    A = np.concatenate([final.A, initial.A])
    B = np.concatenate([final.scale * final.B, -initial.scale * initial.B], axis=1)
    return Update(final.module, A, B.astype(A.dtype, copy=False), 1.0, final.exactness)


def _family(module: ModuleParts) -> str:
    found = [
        family
        for family in _FAMILIES
        if f"{family}_A" in module.info or f"{family}_B" in module.info
    ]
    if len(found) > 1:
        raise misfit(module, "one pair of factors", ", ".join(module.info))
    return found[0] if found else "lora"


def _embedding(module: ModuleParts) -> tuple[FloatArray, FloatArray]:
    return pair(
        flattened(need(module, "lora_embedding_A", 2), module, "lora_embedding_A"),
        pointwise(need(module, "lora_embedding_B", 2), module, "lora_embedding_B"),
        module,
    )


def _layer(module: ModuleParts, config: Mapping[str, Any]) -> tuple[FloatArray, FloatArray]:
    stored = block_diagonal(module, config, "lora_A")
    B = pointwise(block_diagonal(module, config, "lora_B"), module, "lora_B")
    A = flattened(stored, module, "lora_A")
    if "lora_mid" in module.info:
        A = _through_middle(A, module)
    n_groups, rest = divmod(A.shape[0], B.shape[1])
    if stored.ndim > 2 and n_groups > 1 and not rest and B.shape[0] % n_groups == 0:
        B = blocks_on_diagonal(B, n_groups, module)
    return pair(A, B, module)


def _through_middle(A: FloatArray, module: ModuleParts) -> FloatArray:
    """A (q, in) under the kernel `lora_mid` (p, q, *kernel), as (p, in * prod(kernel))."""
    mid = need(module, "lora_mid")
    if mid.ndim < 2 or 0 in mid.shape or mid.shape[1] != A.shape[0]:
        raise misfit(module, f"lora_mid of shape (r, {A.shape[0]}, ..)", str(mid.shape))
    kernel = mid.reshape(mid.shape[0], mid.shape[1], -1)
    composed: FloatArray = np.einsum("pqk,qi->pik", kernel, A)
    return composed.reshape(mid.shape[0], -1)
