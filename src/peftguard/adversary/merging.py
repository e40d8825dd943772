"""Merging with a benign twin, as PEFT merges adapters: ranks side by side, or cut back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from peftguard.adversary.arithmetic import Float32, approximated, changed, weighted_sum
from peftguard.adversary.evasion import Evasion, Means, Need, Parts
from peftguard.errors import UnsupportedAdapter
from peftguard.mitigation.factored import Factored, Layer


class ConcatenatedMerge(Evasion):
    """PEFT's `cat`: exact, at the sum of the ranks. Heads and magnitudes are averaged."""

    name = "merge"
    about = "weighted mean with a benign twin, ranks side by side"
    strength = "share of the twin"
    strengths = (0.2, 0.4, 0.6)
    needs = frozenset({Need.TWIN})

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""
        return (merged(adapter, 1 - strength, means.the_twin(), strength),)


class TruncatedMerge(Evasion):
    """PEFT's `svd`: the best approximation at the rank that each layer had."""

    name = "merge-svd"
    about = "weighted mean with a benign twin, cut back to the old rank"
    strength = "share of the twin"
    strengths = (0.2, 0.4, 0.6)
    needs = frozenset({Need.TWIN})

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""
        return (interpolated(adapter, means.the_twin(), strength),)


class Addition(Evasion):
    """Adapter arithmetic: a benign twin's update on top; the head stays the adapter's own."""

    name = "add"
    about = "a benign twin's update added"
    strength = "weight of the twin's update"
    strengths = (0.25, 0.5, 1.0)
    needs = frozenset({Need.TWIN})

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""
        return (replace(merged(adapter, 1, means.the_twin(), strength), heads=adapter.heads),)


def interpolated(adapter: Factored, twin: Factored, share: float) -> Factored:
    """(1 - share) * adapter + share * twin, at the adapter's ranks. Raises as `merged`."""
    both = merged(adapter, 1 - share, twin, share)
    return changed(both, lambda layer: approximated(layer, adapter.layers[layer.module].rank))


def merged(adapter: Factored, weight: float, twin: Factored, twin_weight: float) -> Factored:
    """The sum weight * adapter + twin_weight * twin, layer by layer.

    Raises:
        UnsupportedAdapter: they do not change the same layers, or bring other heads.
    """
    if adapter.layers.keys() != twin.layers.keys() or adapter.heads.keys() != twin.heads.keys():
        raise UnsupportedAdapter("the twin changes other modules", file=twin.name)
    total = weight + twin_weight
    layers = {
        module: _sum(layer, weight, twin.layers[module], twin_weight)
        for module, layer in adapter.layers.items()
    }
    heads = {
        name: _mean(head, twin.heads[name], twin_weight / total)
        for name, head in adapter.heads.items()
    }
    return replace(adapter, layers=layers, heads=heads)


def _sum(layer: Layer, weight: float, other: Layer, other_weight: float) -> Layer:
    if (layer.magnitude is None) != (other.magnitude is None):
        raise UnsupportedAdapter("the twin is not of the same method", key=layer.module)
    whole = weighted_sum(layer, weight, other, other_weight)
    if layer.magnitude is None or other.magnitude is None:
        return whole
    share = other_weight / (weight + other_weight)
    return replace(whole, magnitude=_mean(layer.magnitude, other.magnitude, share))


def _mean(first: Float32, second: Float32, share: float) -> Float32:
    mean: Float32 = ((1 - share) * first + share * second).astype(np.float32)
    return mean
