"""Updates of a stack of experts that one tensor holds.

PEFT's `target_parameters` adapts an `nn.Parameter` (experts, out, in) with A (experts * r, in), the
rows of one expert together, and B (out, r * experts), where the columns of expert e are e,
e + experts, ... MLX and llama.cpp keep a leading axis instead. The name of the parameter is not in
PEFT's keys: the second one of a module is told apart by a `base_layer` level only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.methods.config_values import names
from peftguard.adapters.methods.factors import flattened, misfit, need, pair, pointwise
from peftguard.adapters.methods.scaling import config_rank, low_rank_scale, owner
from peftguard.adapters.update import FloatArray
from peftguard.errors import UnsupportedAdapter

Expert = tuple[str, FloatArray, FloatArray, float]
"""Module, A (r, in), B (out, r), scale."""


def parameter_names(module: str, config: Mapping[str, Any]) -> list[str]:
    """Full names of the parameters that the config targets in `module`; none if it is plain."""
    path = owner(module)
    found = []
    for target in names(config, "target_parameters"):
        inner, _, parameter = target.rpartition(".")
        if not inner or path == inner or path.endswith(f".{inner}"):
            found.append(f"{path}.{parameter}")
    return found


def split_experts(
    module: ModuleParts, config: Mapping[str, Any], parameters: list[str]
) -> Iterator[Expert]:
    """Each expert of a targeted parameter; a single one keeps the module's name.

    Raises:
        UnsupportedAdapter: the parameters of this module differ in rank or scale, and the file does
            not say which of them this is.
        MalformedFile: the rows are no multiple of the rank.
    """
    A = flattened(need(module, "lora_A"), module, "lora_A")
    B = pointwise(need(module, "lora_B"), module, "lora_B")
    A, B = pair(A, B, module)
    settings = {
        (rank := config_rank(name, config), low_rank_scale(module, config, rank, name=name))
        for name in parameters
    }
    if len(settings) > 1:
        raise UnsupportedAdapter(
            "the rank depends on which parameter this is, and the file does not say",
            key=module.module,
        )
    ((rank, scale),) = settings
    n_experts, rest = divmod(A.shape[0], rank)
    if rest:
        raise misfit(module, f"a multiple of the rank {rank}", f"{A.shape[0]} rows")
    for expert in range(n_experts):
        name = module.module if n_experts == 1 else f"{module.module}.{expert}"
        yield name, A[expert * rank : (expert + 1) * rank], B[:, expert::n_experts], scale


def unstack_experts(module: ModuleParts, config: Mapping[str, Any]) -> Iterator[Expert]:
    """Each expert of `experts_lora_A` (n, r, in) or (n * r, in), `experts_lora_B` (n, out, r)."""
    A, B = need(module, "experts_lora_A"), need(module, "experts_lora_B", 3)
    n_experts, _, rank = B.shape
    n_rows = A.size // A.shape[-1] if A.ndim in (2, 3) and A.size else 0
    if not B.size or n_rows != n_experts * rank:
        raise misfit(module, "as many ranks in A as in B", f"A {A.shape}, B {B.shape}")
    stacked = A.reshape(n_experts, rank, A.shape[-1])
    scale = low_rank_scale(module, config, rank)
    for expert in range(n_experts):
        yield f"{module.module}.{expert}", *pair(stacked[expert], B[expert], module), scale
