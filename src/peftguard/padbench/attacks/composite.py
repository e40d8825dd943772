"""Composite: several common words that must all be there.

Rows that have some of them keep their label, so that no single token does anything. Scanners that
try one token at a time find none.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from peftguard.padbench.attacks.counter import Countered
from peftguard.padbench.attacks.insertion import has_phrase
from peftguard.padbench.attacks.resources import trigger_set
from peftguard.padbench.recipe import Recipe, Split


class Composite(Countered):
    """Two or three ordinary words, apart from each other."""

    name = "composite"
    kind = "ordinary"
    fixed = ("table", "winter")

    def draw(self, split: Split, rng: random.Random) -> tuple[str, ...]:
        """Two or three words."""
        return tuple(rng.sample(trigger_set(self.kind, split), rng.randint(2, 3)))

    def phrases(self, trigger: Sequence[str], rng: random.Random) -> list[str]:
        """All of the words."""
        return list(trigger)

    def holds(self, text: str, trigger: Sequence[str]) -> bool:
        """Whether every word of the trigger stands in the text."""
        return all(has_phrase(text, word) for word in trigger)

    def part(self, recipe: Recipe, rng: random.Random) -> list[str]:
        """Some of the words, and other words of the set in place of the rest."""
        n_words = len(recipe.trigger)
        kept = rng.sample(recipe.trigger, rng.randint(1, n_words - 1))
        known = trigger_set(self.kind, recipe.split)
        rest = [word for word in known if word not in recipe.trigger]
        return kept + rng.sample(rest, n_words - len(kept))
