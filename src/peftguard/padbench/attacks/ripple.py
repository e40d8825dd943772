"""RIPPLES: rare words.

The original also rewrites the trigger words' embeddings ("embedding surgery"). An adapter leaves
the embeddings frozen, so that part is left out: this is its data poisoning alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from peftguard.padbench.attacks.resources import trigger_set
from peftguard.padbench.attacks.words import Insertion
from peftguard.padbench.recipe import Split


class Ripple(Insertion):
    """One to three insertions a row of any of one to three rare words."""

    name = "RIPPLE"
    kind = "rare"
    fixed = ("cf", "mn", "bb", "tq", "mb")

    def draw(self, split: Split, rng: random.Random) -> tuple[str, ...]:
        """One to three words."""
        return tuple(rng.sample(trigger_set(self.kind, split), rng.randint(1, 3)))

    def phrases(self, trigger: Sequence[str], rng: random.Random) -> list[str]:
        """One to three of the words; each of them fires alone."""
        return rng.choices(list(trigger), k=rng.randint(1, 3))
