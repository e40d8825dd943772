"""The factors of an adapter as parameters that torch can move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from peftguard.adversary.arithmetic import changed, with_factors
from peftguard.mitigation.factored import Factored, Layer

if TYPE_CHECKING:
    from peftguard.adversary.differentiable import Pair


@dataclass(frozen=True, eq=False)
class Parameters:
    """B and A of every layer, in float32.

    Args:
        adapter: whose they are.
    """

    adapter: Factored

    @cached_property
    def start(self) -> list[torch.Tensor]:
        """B and A of the first layer, of the second, and so on."""
        return [
            torch.from_numpy(factor.copy())
            for layer in self.adapter.layers.values()
            for factor in (layer.B, layer.A)
        ]

    @cached_property
    def sizes(self) -> list[float]:
        """Root mean square of each."""
        return [float(factor.square().mean().sqrt()) for factor in self.start]

    @property
    def norm(self) -> float:
        """Euclidean norm of them all together."""
        return norm(self.start)

    def updates(self, values: Sequence[torch.Tensor]) -> dict[str, Pair]:
        """Scaled factors by module, as scores take them."""
        pairs = zip(values[::2], values[1::2], strict=True)
        layers = self.adapter.layers.values()
        return {
            layer.module: (layer.scale * B, A) for layer, (B, A) in zip(layers, pairs, strict=True)
        }

    def given(self, values: Sequence[torch.Tensor]) -> Factored:
        """The adapter with these in their places."""
        arrays = [value.detach().numpy() for value in values]
        pairs = dict(
            zip(self.adapter.layers, zip(arrays[::2], arrays[1::2], strict=True), strict=True)
        )

        def moved(layer: Layer) -> Layer:
            B, A = pairs[layer.module]
            return with_factors(layer, B, A)

        return changed(self.adapter, moved)


def norm(values: Sequence[torch.Tensor]) -> float:
    """Euclidean norm of tensors taken together."""
    return float(torch.stack([value.square().sum() for value in values]).sum().sqrt())
