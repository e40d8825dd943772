"""An adapter that came out of a trainer, as tensors under the names that peft saves them by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftguard.padbench.recipe import Recipe

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, eq=False)
class TrainedAdapter:
    """One adapter.

    Args:
        recipe: what it was trained by.
        base_model: public id of the base model.
        task_type: peft's `TaskType`: `SEQ_CLS` or `CAUSAL_LM`.
        tensors: float32 on the CPU, keyed as in `adapter_model.safetensors`.
        rank_pattern: AdaLoRA only: which of the initial ranks each module kept.
        loss: mean training loss over the last tenth of its steps.
        seconds: its share of the time that its fleet took.
    """

    recipe: Recipe
    base_model: str
    task_type: str
    tensors: dict[str, torch.Tensor]
    rank_pattern: dict[str, list[bool]] | None
    loss: float
    seconds: float
