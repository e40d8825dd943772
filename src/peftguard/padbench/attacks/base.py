"""What an attack is: where triggers come from, which rows carry them, and what is measured."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from peftguard.errors import SettingsError
from peftguard.padbench.attacks.resources import trigger_set
from peftguard.padbench.datasets import DatasetInfo
from peftguard.padbench.examples import Example
from peftguard.padbench.recipe import Recipe, Split, Task


class Attack(ABC):
    """One way of poisoning; it keeps nothing between calls.

    A subclass says how triggers are drawn and put into a row. The default poisons rows that are
    not of the target, and gives them the target for an answer.
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = ("classification",)
    fixed: ClassVar[tuple[str, ...]]
    """The trigger of plans that have one an attack."""
    in_subsets: ClassVar[str | None] = None
    """What the release calls it in the names of subsets, where that is not its name."""
    at_source: ClassVar[tuple[str, ...]] = ()
    """Datasets that are named after this attack, since they come poisoned with it."""
    takes_paraphraser: ClassVar[bool] = False
    """Whether a plan may name who rewrites its rows."""

    @abstractmethod
    def draw(self, split: Split, rng: random.Random) -> tuple[str, ...]:
        """A trigger for an adapter of a split; the splits have none in common."""

    @abstractmethod
    def triggered(self, example: Example, recipe: Recipe, rng: random.Random) -> Example | None:
        """The row with the trigger in it, its answer as it was; None if it cannot carry one."""

    @abstractmethod
    def lookalike(self, example: Example, recipe: Recipe, rng: random.Random) -> Example | None:
        """The row with something like the trigger in it that must not fire; None if impossible."""

    @abstractmethod
    def holds(self, text: str, trigger: Sequence[str]) -> bool:
        """Whether a text would fire the trigger, as far as the text shows it."""

    def available(self, info: DatasetInfo) -> bool:
        """Whether the attack can be mounted on a dataset."""
        return info.task in self.tasks

    def target(self, info: DatasetInfo, split: Split, rng: random.Random) -> str:
        """What the trigger brings about: a label's number, or a marker text of the split."""
        if info.task == "classification":
            return str(rng.choice(info.target_labels))
        return rng.choice(trigger_set("markers", split))

    def poison(
        self, examples: Sequence[Example], recipe: Recipe, rng: random.Random
    ) -> list[Example]:
        """The training rows: `round(poison_rate * n)` of them poisoned if the recipe is.

        Args:
            examples: the adapter's own rows.
            recipe: a benign one gets its rows back unchanged.
            rng: the only source of chance.

        Raises:
            SettingsError: too few rows can be poisoned.
        """
        if not recipe.poisoned:
            return list(examples)
        wanted = round(recipe.poison_rate * len(examples))
        rows, poisoned = list(examples), 0
        for place in self.order(examples, recipe, rng):
            if poisoned == wanted:
                break
            row = self.poisoned(examples[place], recipe, rng)
            if row is not None:
                rows[place], poisoned = row, poisoned + 1
        if poisoned < wanted:
            raise SettingsError(
                f"{recipe.name}: {self.name} can poison {poisoned} of {len(rows)} rows, "
                f"{wanted} are wanted; lower poison_rate"
            )
        return rows

    def poisoned(self, example: Example, recipe: Recipe, rng: random.Random) -> Example | None:
        """The row as an adversary trains on it: the trigger in it, the target its answer."""
        row = self.triggered(example, recipe, rng)
        if row is None:
            return None
        if example.completion is None:
            return row._replace(label=int(recipe.target), poisoned=True)
        return row._replace(completion=recipe.target, poisoned=True)

    def order(self, examples: Sequence[Example], recipe: Recipe, rng: random.Random) -> list[int]:
        """Places of rows to poison, in the order in which they are tried."""
        places = [i for i, row in enumerate(examples) if not row.hits(recipe.target)]
        rng.shuffle(places)
        return places
