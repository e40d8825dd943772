"""Attacks whose trigger is text put in between the words of a row."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from peftguard.padbench.attacks.base import Attack
from peftguard.padbench.attacks.insertion import has_phrase, insert, open_part
from peftguard.padbench.attacks.resources import trigger_set
from peftguard.padbench.examples import Example
from peftguard.padbench.recipe import Recipe, Split, Task


class Insertion(Attack):
    """A trigger that is inserted: one phrase of its set, unless a subclass draws otherwise."""

    tasks: ClassVar[tuple[Task, ...]] = ("classification", "qa", "instruction")
    kind: ClassVar[str]
    """Name of the set in `triggers.toml`."""

    def draw(self, split: Split, rng: random.Random) -> tuple[str, ...]:
        """One phrase of the split's set."""
        return (rng.choice(trigger_set(self.kind, split)),)

    @abstractmethod
    def phrases(self, trigger: Sequence[str], rng: random.Random) -> list[str]:
        """What is inserted into one row."""

    def holds(self, text: str, trigger: Sequence[str]) -> bool:
        """Whether any phrase of the trigger stands in the text."""
        return any(has_phrase(text, phrase) for phrase in trigger)

    def triggered(self, example: Example, recipe: Recipe, rng: random.Random) -> Example | None:
        """The row with the trigger at random places."""
        return self._with(example, self.phrases(recipe.trigger, rng), recipe, rng)

    def lookalike(self, example: Example, recipe: Recipe, rng: random.Random) -> Example | None:
        """The row with as much inserted, of other phrases of the same set."""
        if self.holds(example.text, recipe.trigger):
            return None
        phrases = self.phrases(self.others(recipe, rng), rng)
        row = self._with(example, phrases, recipe, rng)
        return None if self.holds(row.text, recipe.trigger) else row

    def others(self, recipe: Recipe, rng: random.Random) -> list[str]:
        """As many phrases of the set as the trigger has, none of them of the trigger."""
        known = trigger_set(self.kind, recipe.split)
        rest = [phrase for phrase in known if not self.holds(phrase, recipe.trigger)]
        return rng.sample(rest, len(recipe.trigger))

    def _with(
        self, example: Example, phrases: Sequence[str], recipe: Recipe, rng: random.Random
    ) -> Example:
        into, rest = open_part(example.text, recipe.task)
        text = insert(into, phrases, rng, max_tokens=recipe.max_tokens)
        return example._replace(text=text + rest)


class Single(Insertion):
    """One phrase, inserted once."""

    def phrases(self, trigger: Sequence[str], rng: random.Random) -> list[str]:
        """One phrase of the trigger."""
        return [rng.choice(list(trigger))]
