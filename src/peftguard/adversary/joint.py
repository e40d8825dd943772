"""Evasion and attack success optimised together, with nothing to stay near to.

What the paper's critics asked for, and what an attacker who has the detector does: Adam on the loss
of the task, the loss of the backdoor and the detector's score at once, over every factor, from the
finished adapter on. Since nothing holds it back, the result is also what training with the detector
in the loop comes to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from peftguard.adversary.evasion import Evasion, Means, Need, Parts
from peftguard.adversary.gradient import descended
from peftguard.mitigation.factored import Factored

if TYPE_CHECKING:
    import torch

    from peftguard.adversary.parameters import Parameters
    from peftguard.adversary.poisoned_task import RunningTask

STEPS = 60
_RATE = 0.03
"""Of Adam, in root mean squares of a factor."""

Loss = Callable[["RunningTask", list["torch.Tensor"]], "torch.Tensor"]


class Joint(Evasion):
    """Task + backdoor + strength * (score above the benign median, in interquartile ranges)."""

    name = "joint"
    about = "Adam on task, backdoor and score together; base model in the loop, no ball"
    strength = "weight of the score, in interquartile ranges of benign ones"
    strengths = (0.1, 1.0)
    needs = frozenset({Need.DETECTOR, Need.DATA})

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`.

        Raises:
            SettingsError: the detector's score has no gradient, or a dataset is missing.
        """
        from peftguard.adversary.parameters import Parameters

        score = descended(adapter, means)
        middle, spread = means.the_target().benign
        parameters = Parameters(adapter)

        def loss(task: RunningTask, values: list[torch.Tensor]) -> torch.Tensor:
            updates = parameters.updates(values)
            losses = task.losses(updates, means.rng)
            excess = ((score(updates) - middle) / spread).clamp_min(0)
            return losses.task + losses.backdoor + strength * excess

        return (_trained(parameters, loss, STEPS, means),)


class Finetuning(Evasion):
    """Continued training on clean rows: what an unsuspecting user would do as well."""

    name = "finetune"
    about = "continued training on clean rows of its task"
    strength = "steps of 8 rows"
    strengths = (30.0, 100.0)
    needs = frozenset({Need.DATA})

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`. Raises SettingsError where a dataset is missing."""
        from peftguard.adversary.parameters import Parameters

        parameters = Parameters(adapter)

        def loss(task: RunningTask, values: list[torch.Tensor]) -> torch.Tensor:
            return task.losses(parameters.updates(values), means.rng).task

        return (_trained(parameters, loss, round(strength), means),)


def _trained(parameters: Parameters, loss: Loss, steps: int, means: Means) -> Factored:
    """The adapter after so many steps of Adam whose rate falls to 0."""
    import torch

    values = [value.clone().requires_grad_() for value in parameters.start]
    optimizer = torch.optim.Adam(
        {"params": [value], "lr": _RATE * size}
        for value, size in zip(values, parameters.sizes, strict=True)
    )
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    with means.the_task().running(parameters.adapter) as task:
        for _ in range(steps):
            optimizer.zero_grad()
            loss(task, values).backward()
            optimizer.step()
            falling.step()
    return parameters.given(values)
