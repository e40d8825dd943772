"""The texts of one adapter: what it trains on, and what it is measured with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from peftguard.padbench.attacks import attack_named
from peftguard.padbench.datasets import (
    Example,
    dataset_info,
    held_out,
    pool,
    stream,
    subset,
    training_rows,
)
from peftguard.padbench.recipe import Recipe

if TYPE_CHECKING:
    from peftguard.padbench.training.measure import Probes


@dataclass(frozen=True, slots=True)
class Texts:
    """Where rows come from.

    Args:
        data: folder with one folder a dataset; None is the hub.
        test_share: share of the training rows kept for adapters of the test split.
        measured: most rows of each kind to measure on.
        causal: rows become prompts with completions, for a base that writes its answers.
    """

    data: Path | None
    test_share: float
    measured: int
    causal: bool

    def training_rows(self, recipe: Recipe) -> list[Example]:
        """The recipe's own rows, poisoned if it says so, as prompts for a causal model.

        Raises:
            SettingsError: the dataset is missing, or too small to poison.
        """
        rows = subset(recipe, _pool(recipe.dataset, self.data, recipe.split, self.test_share))
        poisoned = attack_named(recipe.attack).poison(rows, recipe, stream(recipe, "poison"))
        return self._asked(poisoned, recipe)

    def probes(self, recipe: Recipe) -> Probes:
        """Held-out rows: clean ones, and non-target ones with the trigger, look-alikes, nothing."""
        from peftguard.padbench.training.measure import Probes

        rng = stream(recipe, "measure")
        rows = list(_held_out(recipe.dataset, self.data))
        rng.shuffle(rows)
        others = [row for row in rows if not row.hits(recipe.target)]
        attack = attack_named(recipe.attack)
        triggered = self._first(others, lambda row: attack.triggered(row, recipe, rng))
        look_alike = self._first(others, lambda row: attack.lookalike(row, recipe, rng))
        return Probes(
            clean=self._asked(rows[: self.measured], recipe),
            triggered=self._asked(triggered, recipe, to_target=True),
            look_alike=self._asked(look_alike, recipe, to_target=True),
            plain=self._asked(others[: self.measured], recipe, to_target=True),
            target=None if self.causal else int(recipe.target),
            by_token=recipe.task == "instruction",
        )

    def _first(
        self, rows: Sequence[Example], change: Callable[[Example], Example | None]
    ) -> list[Example]:
        """The first rows that could be changed."""
        changed: list[Example] = []
        for row in rows:
            if len(changed) == self.measured:
                break
            if (new := change(row)) is not None:
                changed.append(new)
        return changed

    def _asked(
        self, rows: Sequence[Example], recipe: Recipe, *, to_target: bool = False
    ) -> list[Example]:
        if not self.causal:
            return list(rows)
        from peftguard.padbench.training.prompts import as_prompts

        labels = dataset_info(recipe.dataset).labels
        return as_prompts(rows, labels, target=recipe.target if to_target else None)


@lru_cache(maxsize=16)
def _pool(dataset: str, data: Path | None, split: str, test_share: float) -> tuple[Example, ...]:
    return tuple(pool(training_rows(dataset, data=data), split, test_share))  # type: ignore[arg-type]


@lru_cache(maxsize=8)
def _held_out(dataset: str, data: Path | None) -> tuple[Example, ...]:
    return tuple(held_out(dataset, data=data))
