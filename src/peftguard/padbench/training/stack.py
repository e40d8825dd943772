"""The parameters of K adapters as one matrix, a row each, with their optimiser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from peftguard.padbench.recipe import Method, Recipe
from peftguard.padbench.training.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftguard.padbench.training.layout import Parts

BETAS = (0.9, 0.999)
EPSILON = 1e-8
MAX_NORM = 1.0
"""Gradients are clipped to this norm, each adapter's by itself."""


class Stack:
    """K adapters in training: one row each of `flat`, (K, P) float32.

    Clipping, AdamW without decay and the linear fall of the learning rate are torch's, but every
    row has rates and a number of steps of its own.

    Args:
        layout: of the highest rank among them.
        rows: their first parameters, (K, P).
        recipes: their learning rates and steps.
    """

    def __init__(self, layout: Layout, rows: torch.Tensor, recipes: Sequence[Recipe]) -> None:
        self.layout = layout
        self.flat = rows.requires_grad_()
        device = rows.device
        self.rates = torch.stack([_rates(layout, recipe) for recipe in recipes]).to(device)
        self.steps = torch.tensor([[float(recipe.steps)] for recipe in recipes], device=device)
        self.mean, self.square = torch.zeros_like(rows), torch.zeros_like(rows)

    @property
    def parts(self) -> Parts:
        """Views of the parameters, (K, *shape) each; gradients flow back into `flat`."""
        return self.layout.split(self.flat)

    def step(self, done: int) -> torch.Tensor:
        """One step of AdamW, without autograd; `done` came before. Returns the clipped gradient."""
        gradient = self.flat.grad
        assert gradient is not None  # noqa: S101 - backward has run
        norms = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        gradient.mul_((MAX_NORM / (norms + 1e-6)).clamp_max(1.0))
        self.mean.lerp_(gradient, 1 - BETAS[0])
        self.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        root = (self.square / (1 - BETAS[1] ** (done + 1))).sqrt_().add_(EPSILON)
        rates = self.rates * ((1 - done / self.steps) / (1 - BETAS[0] ** (done + 1)))
        self.flat.sub_(self.mean * rates / root)
        self.flat.grad = None
        return gradient

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only."""
        self.flat = self.flat.detach()[rows].requires_grad_()
        self.rates, self.steps = self.rates[rows], self.steps[rows]
        self.mean, self.square = self.mean[rows], self.square[rows]


def _rates(layout: Layout, recipe: Recipe) -> torch.Tensor:
    """Peak rate of every parameter, (P,). LoRA+ gives B, and all vectors, a rate of their own."""
    ratio = recipe.lr_ratio if recipe.method is Method.LORA_PLUS else 1.0
    rates = [
        torch.full(
            (slot.size,),
            recipe.lr * (ratio if slot.part == "B" or len(slot.shape) == 1 else 1.0),
        )
        for slot in layout.slots
    ]
    return torch.cat(rates)
