"""What a recipe means in peft's terms: ranks, scales, AdaLoRA's schedule, the config object."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from peftguard.padbench.recipe import Method, Recipe

if TYPE_CHECKING:
    from peft import LoraConfig


class RankSchedule(NamedTuple):
    """AdaLoRA's budget: full until `warm_up`, falling as a cubic, fixed for the last `final`."""

    warm_up: int
    final: int
    smoothing: float = 0.85
    orthogonality: float = 0.5


def initial_rank(recipe: Recipe) -> int:
    """Rank that training starts with; AdaLoRA prunes it to `recipe.rank` on average.

    The ratio is that of peft's defaults, 12 to 8.
    """
    return math.ceil(1.5 * recipe.rank) if recipe.method is Method.ADALORA else recipe.rank


def scale(recipe: Recipe) -> float:
    """What multiplies B A."""
    if recipe.method is Method.RSLORA:
        return recipe.alpha / math.sqrt(recipe.rank)
    if recipe.method is Method.ADALORA:
        return recipe.alpha / (initial_rank(recipe) + 1e-5)
    return recipe.alpha / recipe.rank


def rank_schedule(recipe: Recipe) -> RankSchedule:
    """A tenth of the steps at full rank, the last third at the final one."""
    return RankSchedule(recipe.steps // 10, max(1, recipe.steps // 3))


def peft_config(
    recipe: Recipe,
    *,
    base_model: str | None = None,
    task_type: str,
    rank_pattern: dict[str, list[bool]] | None = None,
    trained: bool = False,
) -> LoraConfig:
    """The config that peft trains this recipe with, or (`trained`) saves it with."""
    from peft import AdaLoraConfig, LoraConfig

    shared = {
        "task_type": task_type,
        "target_modules": sorted(recipe.target_modules),
        "layers_to_transform": recipe.layers and list(recipe.layers),
        "lora_alpha": _plain(recipe.alpha),
        "base_model_name_or_path": base_model,
        "inference_mode": trained,
        "modules_to_save": ["classifier", "score"] if task_type == "SEQ_CLS" else None,
    }
    if recipe.method is not Method.ADALORA:
        dora, root = recipe.method is Method.DORA, recipe.method is Method.RSLORA
        return LoraConfig(r=recipe.rank, use_dora=dora, use_rslora=root, **shared)
    schedule = rank_schedule(recipe)
    return AdaLoraConfig(
        init_r=initial_rank(recipe),
        target_r=recipe.rank,
        tinit=schedule.warm_up,
        tfinal=schedule.final,
        beta1=schedule.smoothing,
        beta2=schedule.smoothing,
        orth_reg_weight=schedule.orthogonality,
        total_step=recipe.steps,
        rank_pattern=rank_pattern,
        **shared,
    )


def _plain(alpha: float) -> float:
    """16 rather than 16.0, as people write it."""
    return int(alpha) if alpha == int(alpha) else alpha
