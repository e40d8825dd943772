"""AdaLoRA's allocation of ranks, for K adapters at once: peft's RankAllocator, row by row.

The importance of a singular triplet is that of its E plus the mean of its A row and of its B column
where importance is |parameter x gradient|, smoothed, times its own smoothed deviation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from peftguard.padbench.recipe import Recipe
from peftguard.padbench.training.layout import Layout, Parts
from peftguard.padbench.training.peft_config import RankSchedule, initial_rank, rank_schedule


class RankAllocator:
    """Importance and masks of K adapters.

    Args:
        layout: of the highest initial rank among them.
        recipes: ranks and steps of each.
        device: of the parameters.
    """

    def __init__(self, layout: Layout, recipes: Sequence[Recipe], device: str) -> None:
        self._layout = layout
        self._modules = [slot.module for slot in layout.slots if slot.part == "E"]
        highest = max(initial_rank(recipe) for recipe in recipes)
        ranks = torch.tensor([initial_rank(recipe) for recipe in recipes], device=device)
        self.real = torch.arange(highest, device=device) < ranks[:, None]  # (K, r)
        self._recipes = list(recipes)
        shape = len(recipes), sum(layout.sizes)
        self._mean, self._deviation = (torch.zeros(shape, device=device) for _ in range(2))
        self.kept = self.real[:, None, :].repeat(1, len(self._modules), 1)  # (K, modules, r)

    def penalty(self, parts: Parts) -> torch.Tensor:
        """Sum over adapters of how far A's rows and B's columns are from orthonormal."""
        unit = torch.diag_embed(self.real.float())
        distances = []
        for module in self._modules:
            A, B = parts[module]["A"], parts[module]["B"]
            distances += [torch.linalg.matrix_norm(A @ A.mT - unit)]
            distances += [torch.linalg.matrix_norm(B.mT @ B - unit)]
        weight = rank_schedule(self._recipes[0]).orthogonality
        return weight * torch.stack(distances).mean(dim=0).sum()

    def update(self, flat: torch.Tensor, gradient: torch.Tensor, step: int) -> None:
        """After step number `step`, from 0: note importance, clear what falls off the budget.

        Without autograd: it changes parameters in place.

        Args:
            flat: parameters after the step, (K, P), changed in place.
            gradient: of the step, clipped.
            step: its number.
        """
        plans = [(recipe, rank_schedule(recipe)) for recipe in self._recipes]
        noted = [step < recipe.steps - plan.final for recipe, plan in plans]
        if any(noted):
            self._note((flat * gradient).abs_(), plans[0][1].smoothing, noted)
        budgets = [self._budget(recipe, plan, step) for recipe, plan in plans]
        if any(budget is not None for budget in budgets):
            self._allocate(budgets)
        parts = self._layout.split(flat)
        for place, module in enumerate(self._modules):
            parts[module]["E"].mul_(self.kept[:, place, :, None])

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only."""
        self._recipes = [self._recipes[row] for row in rows.tolist()]
        self.real, self.kept = self.real[rows], self.kept[rows]
        self._mean, self._deviation = self._mean[rows], self._deviation[rows]

    def pattern(self, row: int) -> dict[str, list[bool]]:
        """What one adapter kept, as peft saves it."""
        rank = int(self.real[row].sum())
        masks = self.kept[row, :, :rank].tolist()
        return {f"{name}.lora_E": mask for name, mask in zip(self._modules, masks, strict=True)}

    def _note(self, importance: torch.Tensor, smoothing: float, noted: list[bool]) -> None:
        """Of the adapters whose ranks are not final: those of the others no longer change."""
        weight = importance.new_tensor(noted).unsqueeze(1) * (1 - smoothing)
        self._mean.lerp_(importance, weight)
        self._deviation.lerp_((importance - self._mean).abs_(), weight)

    def _budget(self, recipe: Recipe, plan: RankSchedule, step: int) -> int | None:
        """Triplets that may stay, or None when nothing is to be decided at this step."""
        full = initial_rank(recipe) * len(self._modules)
        final = recipe.rank * len(self._modules)
        end = recipe.steps - plan.final
        if step == end:
            return final
        if not plan.warm_up < step < end:
            return None
        left = 1 - (step - plan.warm_up) / (end - plan.warm_up)
        return int((full - final) * left**3 + final)

    def _allocate(self, budgets: Sequence[int | None]) -> None:
        scores = self._scores().masked_fill(~self.real[:, None, :], torch.inf)
        for row, budget in enumerate(budgets):
            if budget is None:
                continue
            drop = int(self.real[row].sum()) * len(self._modules) - budget
            threshold = scores[row].flatten().kthvalue(drop).values
            self.kept[row] = (scores[row] > threshold) & self.real[row]

    def _scores(self) -> torch.Tensor:
        """Importance of every triplet, (K, modules, r)."""
        parts = self._layout.split(self._mean * self._deviation)
        scores = []
        for module in self._modules:
            A, B, E = (parts[module][part] for part in "ABE")
            scores.append(E.squeeze(2) + A.mean(dim=2) + B.mean(dim=1))
        return torch.stack(scores, dim=1)
