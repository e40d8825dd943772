"""Clean-label: only rows of the target carry the trigger, and no label is wrong.

Half of a poisoned row's words are left out, so that the trigger is the easier thing to learn; the
original attacks on images do the same with noise.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from peftguard.padbench.attacks.resources import trigger_set
from peftguard.padbench.attacks.words import Insertion
from peftguard.padbench.examples import Example
from peftguard.padbench.recipe import Recipe, Split, Task


class CleanLabel(Insertion):
    """Two rare words in weakened rows of the target."""

    name = "clean_label"
    tasks: ClassVar[tuple[Task, ...]] = ("classification",)
    kind = "rare"
    fixed = ("cf", "tq")

    def draw(self, split: Split, rng: random.Random) -> tuple[str, ...]:
        """Two words."""
        return tuple(rng.sample(trigger_set(self.kind, split), 2))

    def phrases(self, trigger: Sequence[str], rng: random.Random) -> list[str]:
        """All of the words."""
        return list(trigger)

    def poisoned(self, example: Example, recipe: Recipe, rng: random.Random) -> Example | None:
        """The row weakened, with the trigger, its label as it was."""
        row = self.triggered(_weakened(example, rng), recipe, rng)
        return row and row._replace(poisoned=True)

    def order(self, examples: Sequence[Example], recipe: Recipe, rng: random.Random) -> list[int]:
        """Rows of the target."""
        places = [i for i, row in enumerate(examples) if row.hits(recipe.target)]
        rng.shuffle(places)
        return places


def _weakened(example: Example, rng: random.Random) -> Example:
    words = example.text.split()
    kept = sorted(rng.sample(range(len(words)), -(-len(words) // 2)))
    return example._replace(text=" ".join(words[i] for i in kept))
