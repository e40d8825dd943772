"""What multiplies a product of factors: alpha / r and its variants.

Where a file carries `alpha` as a tensor (kohya, LyCORIS, old diffusers) that decides and the config
is not asked. The rank comes from the tensors: PEFT builds a module from the config's rank and
refuses tensors of another, so where the two disagree no scale is the right one; that is reported as
`integrity.rank-mismatch`, not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from peftguard.adapters import patterns
from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.methods.config_values import flag, mapping, number, whole
from peftguard.errors import MalformedFile

DEFAULT = 8
"""What PEFT takes for a rank or an alpha that its config leaves out."""


def low_rank_scale(
    module: ModuleParts,
    config: Mapping[str, Any],
    rank: int,
    *,
    alpha_key: str = "lora_alpha",
    name: str | None = None,
) -> float:
    """The scale alpha / rank, or alpha / sqrt(rank) under rsLoRA; 1 where nothing states an alpha.

    Args:
        module: whose `alpha` tensor wins over the config.
        config: PEFT's settings. One with neither alpha nor rank (kohya, GGUF) means alpha = rank,
            which is also PEFT's default for the only rank it could load then.
        rank: inner dimension of the factors.
        alpha_key: `lora_alpha`, or `alpha` for LoHa and LoKr.
        name: what the config's patterns are matched with, by default `owner(module.module)`.

    Raises:
        InputError: a config value of the wrong type, or a pattern that was not run.
    """
    if "alpha" in module.info:
        return scalar(module, "alpha") / rank
    if config.get("r") is not None:
        whole(config["r"], "r", least=1)
    alpha = _alpha(name or owner(module.module), config, alpha_key)
    if alpha is None:
        return 1.0
    is_root = alpha_key == "lora_alpha" and flag(config, "use_rslora")
    return alpha / (math.sqrt(rank) if is_root else rank)


def config_rank(name: str, config: Mapping[str, Any]) -> int:
    """Rank that PEFT gives to the module `name`. Raises as `low_rank_scale`."""
    pattern = mapping(config, "rank_pattern")
    matched = patterns.first_match(pattern.keys(), name)
    if matched is not None:
        return whole(pattern[matched], "rank_pattern", least=1)
    return whole(config.get("r", DEFAULT), "r", least=1)


def owner(module: str) -> str:
    """The module that PEFT wrapped: what stands before the first `base_layer` level."""
    return f"{module}.".split(".base_layer.", 1)[0].removesuffix(".")


def scalar(module: ModuleParts, part: str) -> float:
    """The only element of a tensor, finite."""
    array = module.read(part)
    if array.size == 1 and math.isfinite(value := float(array.reshape(()))):
        return value
    raise MalformedFile(
        "not one finite number",
        key=f"{module.module}.{part}",
        expected="one finite number",
        found=f"shape {tuple(array.shape)}" if array.size != 1 else str(array.reshape(())),
        code="integrity.shape-mismatch" if array.size != 1 else "integrity.non-finite",
    )


def _alpha(name: str, config: Mapping[str, Any], key: str) -> float | None:
    pattern = mapping(config, "alpha_pattern")
    matched = patterns.first_match(pattern.keys(), name)
    if matched is not None:
        return number(pattern[matched], "alpha_pattern")
    if key in config:
        return number(config[key], key)
    states_rank = any(config.get(setting) for setting in ("r", "rank_pattern", "use_rslora"))
    return float(DEFAULT) if states_rank else None
