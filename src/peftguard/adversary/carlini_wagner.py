"""Carlini and Wagner's attack: the smallest change that takes the score where it is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftguard.adversary.evasion import Evasion, Means, Need, Parts
from peftguard.adversary.gradient import descended
from peftguard.mitigation.factored import Factored

if TYPE_CHECKING:
    import torch

    from peftguard.adversary.differentiable import Score
    from peftguard.adversary.parameters import Parameters

_STEPS = 100
_RATE = 0.005
"""Of Adam, in root mean squares of a factor."""
_WEIGHTS = (0.01, 0.1, 1.0, 10.0)
"""Of the score against the change, tried in turn until one gets there."""


class CarliniWagner(Evasion):
    """min |d|^2 / |w|^2 + c max(0, score - wanted), by Adam, for growing c, no ball around it.

    What is wanted is the median of benign adapters, less the confidence. The score is in their
    interquartile ranges.
    """

    name = "cw"
    about = "the smallest change that takes the score to the benign median (Carlini and Wagner)"
    strength = "confidence: how far below the median, in interquartile ranges"
    strengths = (0.0, 0.5, 1.0)
    needs = frozenset({Need.DETECTOR})

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`; if no weight gets there, what the largest came to.

        Raises:
            SettingsError: the detector's score has no gradient.
        """
        from peftguard.adversary.parameters import Parameters

        middle, spread = means.the_target().benign
        goal = _Goal(descended(adapter, means), middle - strength * spread, spread)
        parameters = Parameters(adapter)
        moved, reached = parameters.start, False
        for weight in _WEIGHTS:
            moved, reached = _least(parameters, goal, weight)
            if reached:
                break
        return (parameters.given(moved),)


@dataclass(frozen=True, slots=True, eq=False)
class _Goal:
    score: Score
    wanted: float
    unit: float

    def excess(self, parameters: Parameters, values: list[torch.Tensor]) -> torch.Tensor:
        """How far the score is above what is wanted, never below 0."""
        score = self.score(parameters.updates(values))
        return ((score - self.wanted) / self.unit).clamp_min(0)


def _least(parameters: Parameters, goal: _Goal, weight: float) -> tuple[list[torch.Tensor], bool]:
    """The smallest change of all steps that reaches the goal, or the last, and whether it does."""
    import torch

    values = [value.clone().requires_grad_() for value in parameters.start]
    rates = [
        {"params": [value], "lr": _RATE * size}
        for value, size in zip(values, parameters.sizes, strict=True)
    ]
    optimizer = torch.optim.Adam(rates)
    best, least = None, float("inf")
    for _ in range(_STEPS):
        excess = goal.excess(parameters, values)
        moves = zip(values, parameters.start, strict=True)
        squares = torch.stack([(value - first).square().sum() for value, first in moves]).sum()
        if excess.item() == 0 and squares.item() < least:
            best, least = [value.detach().clone() for value in values], squares.item()
        optimizer.zero_grad()
        (squares / parameters.norm**2 + weight * excess).backward()
        optimizer.step()
    return (best or [value.detach() for value in values]), best is not None
