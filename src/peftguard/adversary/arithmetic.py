"""Sums, differences and approximations of updates, from their factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from peftguard.errors import UnsupportedAdapter
from peftguard.features.singular import decomposed
from peftguard.mitigation.factored import Factored, Layer

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def changed(adapter: Factored, change: Callable[[Layer], Layer]) -> Factored:
    """The adapter with every layer changed."""
    return replace(adapter, layers={name: change(layer) for name, layer in adapter.layers.items()})


def with_factors(layer: Layer, B: NDArray[np.floating], A: NDArray[np.floating]) -> Layer:
    """The layer with other factors, at its own scale; the rank may be another."""
    return replace(layer, B=B.astype(np.float32), A=A.astype(np.float32))


def weighted_sum(layer: Layer, weight: float, other: Layer, other_weight: float) -> Layer:
    """The sum weight * dW + other_weight * dW', exactly, with the ranks side by side."""
    ratio = other.scale / layer.scale
    B = np.concatenate([weight * layer.B, other_weight * ratio * other.B], axis=1)
    return with_factors(layer, B, np.concatenate([layer.A, other.A]))


def approximated(layer: Layer, rank: int) -> Layer:
    """The best approximation of that rank."""
    left, values, right = decomposed(layer.B, layer.A)
    root = np.sqrt(values[:rank])
    return with_factors(layer, left[:, :rank] * root, root[:, None] * right[:rank])


def rescaled(adapter: Factored, factor: float) -> Factored:
    """Every update times a number."""
    return changed(adapter, lambda layer: with_factors(layer, factor * layer.B, layer.A))


def pruned(layer: Layer, share: float) -> Layer:
    """That share of the entries of either factor, the smallest, set to zero."""
    return with_factors(layer, _large(layer.B, share), _large(layer.A, share))


def squared_norm(layer: Layer) -> float:
    """Squared Frobenius norm of the update."""
    B, A = layer.B.astype(np.float64), layer.A.astype(np.float64)
    return max(0.0, layer.scale**2 * float(np.sum((B.T @ B) * (A @ A.T))))


def change(before: Factored, after: Sequence[Factored]) -> float:
    """|sum of dW' - dW| / |dW| over all layers: what the parts together differ by.

    Raises:
        UnsupportedAdapter: a layer is missing from a part.
    """
    difference = total = 0.0
    for module, layer in before.layers.items():
        sum_of_parts = _negative(layer)
        for part in after:
            if module not in part.layers:
                raise UnsupportedAdapter("a layer is missing", file=part.name, key=module)
            sum_of_parts = weighted_sum(sum_of_parts, 1.0, part.layers[module], 1.0)
        difference += _squared_norm_of_small(sum_of_parts)
        total += squared_norm(layer)
    return math.sqrt(difference / total) if total else math.sqrt(difference)


def together(parts: Sequence[Factored]) -> Factored:
    """Adapters that are loaded at once as one: the sum of their updates, the first one's head."""
    whole = parts[0]
    for part in parts[1:]:
        layers = {
            name: weighted_sum(layer, 1.0, part.layers[name], 1.0)
            for name, layer in whole.layers.items()
        }
        whole = replace(whole, layers=layers)
    return whole


def _negative(layer: Layer) -> Layer:
    return replace(layer, B=-layer.B)


def _squared_norm_of_small(layer: Layer) -> float:
    """As `squared_norm`, where terms nearly cancel: sums of squares would drown in rounding."""
    return layer.scale**2 * float(np.sum(decomposed(layer.B, layer.A)[1] ** 2))


def _large(factor: Float32, share: float) -> Float32:
    sizes = np.abs(factor)
    return np.where(sizes >= np.quantile(sizes, share), factor, 0) if factor.size else factor
