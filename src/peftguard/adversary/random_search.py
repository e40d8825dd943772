"""Black-box search: a detector of which only scores can be asked."""

from __future__ import annotations

import math

from peftguard.adversary.arithmetic import changed, with_factors
from peftguard.adversary.evasion import Evasion, Means, Need, Parts
from peftguard.adversary.noise import noise_like
from peftguard.mitigation.factored import Factored, Layer

_QUERIES = 100


class RandomSearch(Evasion):
    """Random steps in a ball, each kept if it lowers the score; any detector will do.

    A step has sqrt(2 / queries) of the ball's radius: a walk that keeps every second step ends at
    its edge.
    """

    name = "search"
    about = "a hundred queries of the score, random steps kept where it falls"
    strength = "norm of the change, in norms of all factors"
    strengths = (0.1, 0.3, 1.0)
    needs = frozenset({Need.DETECTOR})

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""
        target = means.the_target()
        best, lowest = adapter, target.score(adapter)
        step = strength * math.sqrt(2 / _QUERIES)
        for _ in range(_QUERIES):
            tried = _projected(_stepped(best, adapter, step, means), adapter, strength)
            score = target.score(tried)
            if score < lowest:
                best, lowest = tried, score
        return (best,)


def _stepped(adapter: Factored, first: Factored, step: float, means: Means) -> Factored:
    def moved(layer: Layer) -> Layer:
        own = first.layers[layer.module]
        B = layer.B + step * noise_like(own.B, means.rng)
        return with_factors(layer, B, layer.A + step * noise_like(own.A, means.rng))

    return changed(adapter, moved)


def _projected(adapter: Factored, first: Factored, strength: float) -> Factored:
    """Pulled back to the ball around the first."""
    far = math.sqrt(
        sum(_squares(layer, first.layers[name]) for name, layer in adapter.layers.items())
    )
    norm = math.sqrt(
        sum(float((layer.B**2).sum() + (layer.A**2).sum()) for layer in first.layers.values())
    )
    share = min(1.0, strength * norm / max(far, 1e-30))

    def pulled(layer: Layer) -> Layer:
        own = first.layers[layer.module]
        return with_factors(
            layer, own.B + share * (layer.B - own.B), own.A + share * (layer.A - own.A)
        )

    return changed(adapter, pulled)


def _squares(layer: Layer, first: Layer) -> float:
    return float(((layer.B - first.B) ** 2).sum() + ((layer.A - first.A) ** 2).sum())
