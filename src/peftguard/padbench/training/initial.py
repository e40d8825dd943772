"""How adapters start: peft's own distributions, drawn from the adapter's own generator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from peftguard.padbench.recipe import Method
from peftguard.padbench.training.layout import Layout, Parts, Slot

if TYPE_CHECKING:
    import torch
    from torch import nn


def initial_parts(
    layout: Layout, linears: Mapping[str, nn.Linear], seed: int, head_deviation: float = 0.02
) -> Parts:
    """Parameters of one adapter before its first step, float32 on the CPU.

    The same seed gives the same adapter in a fleet of any size and in the reference trainer.

    Args:
        layout: of the adapter's own rank.
        linears: the layers it adapts, for DoRA's magnitudes.
        seed: of the adapter.
        head_deviation: of the head's weights; its biases are 0.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    parts: Parts = {}
    for slot in layout.slots:
        if slot.part == "magnitude":
            tensor = linears[slot.module].weight.detach().float().norm(dim=1).cpu()
        else:
            deviation = head_deviation if slot.module == layout.head else 0.02
            tensor = _draw(slot, layout, deviation, generator)
        parts.setdefault(slot.module, {})[slot.part] = tensor
    return parts


def _draw(slot: Slot, layout: Layout, deviation: float, generator: torch.Generator) -> torch.Tensor:
    import torch

    tensor = torch.zeros(slot.shape)
    if slot.module == layout.head:
        return tensor.normal_(0, deviation, generator=generator) if len(slot.shape) > 1 else tensor
    if layout.method is Method.ADALORA:
        return tensor.normal_(0, deviation, generator=generator) if slot.part != "E" else tensor
    if slot.part == "B":
        return tensor
    bound = 1 / math.sqrt(slot.shape[1])  # kaiming_uniform_(a=sqrt(5))
    return tensor.uniform_(-bound, bound, generator=generator)
