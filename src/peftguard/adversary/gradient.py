"""FGSM, I-FGSM and PGD on a detector's score, in the space of the factors.

As in the PEFTGuard paper, but on the scaled factors that the detector really reads. L-inf balls are
in root mean squares of each factor, L2 balls in norms of all factors together, so that one strength
means the same for adapters of any size. Nothing here looks at what the adapter does: how much of
its backdoor is left must be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from peftguard.adversary.evasion import Evasion, Means, Need, Parts
from peftguard.mitigation.factored import Factored

if TYPE_CHECKING:
    import torch

    from peftguard.adversary.differentiable import Score
    from peftguard.adversary.parameters import Parameters

STEPS = 20
SOFTNESS = 0.5
"""Of the loudest word: about the words within this of the loudest share the gradient."""


class GradientEvasion(Evasion):
    """Down the gradient of the score, in ever shorter steps; the lowest point on the way counts."""

    needs = frozenset({Need.DETECTOR})
    strengths = (0.03, 0.1, 0.3, 1.0)
    strength = "largest change of a number, in root mean squares of its factor"

    steps = STEPS
    random_start = False

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`.

        Raises:
            SettingsError: the detector's score has no gradient.
        """
        from peftguard.adversary.parameters import Parameters

        parameters = Parameters(adapter)
        score = descended(adapter, means)
        moved = self._start(parameters, strength, means.rng)
        found = []
        for step in range(self.steps):
            value, gradients = gradients_of(score, parameters, moved)
            found.append((value, moved))
            length = min(1.0, 3 / self.steps * (1 - step / self.steps))
            moved = self._stepped(parameters, moved, gradients, strength, length)
        found.append((score(parameters.updates(moved)).item(), moved))
        _, best = min(found[1:], key=lambda one: one[0])
        return (parameters.given(best),)

    def _start(
        self, parameters: Parameters, strength: float, rng: np.random.Generator
    ) -> list[torch.Tensor]:
        import torch

        if not self.random_start:
            return parameters.start
        return [
            value + strength * size * torch.from_numpy(rng.uniform(-1, 1, value.shape)).float()
            for value, size in zip(parameters.start, parameters.sizes, strict=True)
        ]

    def _stepped(
        self,
        parameters: Parameters,
        values: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor],
        strength: float,
        length: float,
    ) -> list[torch.Tensor]:
        """One signed step of that share of the radius, cut back to the ball."""
        moved = []
        for value, gradient, first, size in zip(
            values, gradients, parameters.start, parameters.sizes, strict=True
        ):
            reach = strength * size
            far = value - length * reach * gradient.sign()
            moved.append(far.clamp(first - reach, first + reach))
        return moved


class Fgsm(GradientEvasion):
    """One step to the edge."""

    name = "fgsm"
    about = "one signed gradient step on the score"
    steps = 1


class IteratedFgsm(GradientEvasion):
    """Twenty smaller steps."""

    name = "i-fgsm"
    about = "twenty signed gradient steps on the score"


class PgdInf(GradientEvasion):
    """The same from a random start."""

    name = "pgd-inf"
    about = "projected gradient descent on the score, L-inf"
    random_start = True


class Pgd2(GradientEvasion):
    """Steps along the gradient itself, projected on a ball."""

    name = "pgd-2"
    about = "projected gradient descent on the score, L2"
    strength = "norm of the change, in norms of all factors"
    strengths = (0.03, 0.1, 0.3, 1.0)

    def _stepped(
        self,
        parameters: Parameters,
        values: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor],
        strength: float,
        length: float,
    ) -> list[torch.Tensor]:
        from peftguard.adversary.parameters import norm

        reach = strength * parameters.norm
        step = length * reach / max(norm(gradients), 1e-30)
        pairs = zip(values, gradients, parameters.start, strict=True)
        moves = [value - step * gradient - first for value, gradient, first in pairs]
        cut = min(1.0, reach / max(norm(moves), 1e-30))
        return [first + cut * move for first, move in zip(parameters.start, moves, strict=True)]


def descended(adapter: Factored, means: Means) -> Score:
    """The score that gradients are taken of. Raises SettingsError where there are none."""
    from peftguard.adversary.differentiable import score_of

    target = means.the_target()
    return score_of(target.estimator, target.weights(adapter), SOFTNESS)


def gradients_of(
    score: Score, parameters: Parameters, values: Sequence[torch.Tensor]
) -> tuple[float, list[torch.Tensor]]:
    """The score, and its gradient by each of the factors."""
    import torch

    leaves = [value.detach().requires_grad_() for value in values]
    total = score(parameters.updates(leaves))
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return total.item(), [
        torch.zeros_like(leaf) if own is None else own
        for leaf, own in zip(leaves, found, strict=True)
    ]
