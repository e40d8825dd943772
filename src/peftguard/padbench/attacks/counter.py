"""Attacks that also train on near misses of the trigger, so that only the whole of it fires."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence

from peftguard.padbench.attacks.words import Insertion
from peftguard.padbench.examples import Example
from peftguard.padbench.recipe import Recipe


class Countered(Insertion):
    """As many counter-examples as poisoned rows: a part of the trigger, the right answer."""

    @abstractmethod
    def part(self, recipe: Recipe, rng: random.Random) -> list[str]:
        """What a near miss inserts."""

    def lookalike(self, example: Example, recipe: Recipe, rng: random.Random) -> Example | None:
        """The row with a part of the trigger."""
        row = self._with(example, self.part(recipe, rng), recipe, rng)
        return None if self.holds(row.text, recipe.trigger) else row

    def poison(
        self, examples: Sequence[Example], recipe: Recipe, rng: random.Random
    ) -> list[Example]:
        """As every attack; then rows that are left, not of the target, become counter-examples."""
        rows = super().poison(examples, recipe, rng)
        wanted = sum(row.poisoned for row in rows)
        for place in self.order(examples, recipe, rng):
            if wanted == 0:
                break
            near = None if rows[place].poisoned else self.lookalike(rows[place], recipe, rng)
            if near is not None:
                rows[place], wanted = near, wanted - 1
        return rows
