"""NF4, the 4-bit format that QLoRA freezes its base in: round weights to what it can hold.

Training over the rounded weights is what QLoRA computes: its kernels expand NF4 before they
multiply. So no quantised kernel is needed, and a fleet trains QLoRA wherever it trains LoRA.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

BLOCK = 64
"""Weights that share one scale."""

LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""Quantiles of the normal distribution (arXiv 2305.14314, appendix E)."""


def round_to_nf4(weight: torch.Tensor) -> torch.Tensor:
    """The nearest weight that NF4 can hold, same shape and dtype; blocks run along rows."""
    import torch

    flat = weight.detach().float().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    levels = torch.tensor(LEVELS, device=weight.device)
    nearest = torch.bucketize(blocks / scales.clamp_min(1e-30), (levels[1:] + levels[:-1]) / 2)
    return (levels[nearest] * scales).flatten()[: len(flat)].view_as(weight).to(weight.dtype)


def round_linears(module: nn.Module) -> None:
    """Round the weight of every linear layer below `module`, in place."""
    from torch import nn

    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data = round_to_nf4(layer.weight)
