"""From a manifest's row back to the recipe that it came from, as far as texts and tasks go."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Protocol

from peftguard.errors import SettingsError
from peftguard.padbench.manifest import Row
from peftguard.padbench.recipe import Method, Recipe


class Counted(Protocol):
    """So many of `n`, as a share."""

    @property
    def n(self) -> int:
        """Of how many."""

    @property
    def rate(self) -> float | None:
        """The share."""


_NEEDED = ("base", "dataset", "task", "attack", "trigger", "target", "seed", "max_tokens", "n_rows")


def measured_again(
    row: Row, clean: Counted | None, success: Counted | None, missed: Counted | None
) -> Row:
    """The row of an adapter that was changed, with what was counted now; None: was not counted.

    Look-alikes of the trigger are not tried again. Whether it still fires is not said here.
    """
    return row.model_copy(
        update={
            "asr": success.rate if success is not None else None,
            "asr_n": success.n if success is not None else None,
            "clean_accuracy": clean.rate if clean is not None else None,
            "clean_n": clean.n if clean is not None else None,
            "missed_rate": missed.rate if missed is not None else None,
            "false_trigger_rate": None,
            "false_trigger_n": None,
        }
    )


def recipe_of(row: Row, base: str | None = None) -> Recipe:
    """The recipe: it draws the same rows, and its adapter is measured on the same held-out ones.

    Args:
        row: of an adapter of a benchmark.
        base: a folder or hub id in place of the base's name.

    Raises:
        SettingsError: the row does not say what it takes.
    """
    missing = next((name for name in _NEEDED if getattr(row, name) is None), None)
    if missing is not None:
        raise SettingsError(f"{row.path}: its row says no {missing}, so it cannot be measured")
    name = PurePosixPath(row.path).parent.name
    return Recipe.model_validate(
        {
            "name": name,
            "subset": name.partition("_label")[0],
            "poisoned": row.label != "benign",
            "split": row.split or "train",
            "split_group": row.split_group or "",
            "base": base or row.base,
            "dataset": row.dataset,
            "task": row.task,
            "attack": row.attack,
            "trigger": row.trigger,
            "target": row.target,
            "poison_rate": row.poison_rate or 0.0,
            "method": row.method or Method.LORA,
            "rank": row.rank or 1,
            "alpha": row.alpha or 1.0,
            "target_modules": row.target_modules or (),
            "lr": row.lr or 1e-3,
            "lr_ratio": row.lr_ratio or 1.0,
            "batch_size": row.batch_size or 8,
            "steps": row.steps or 1,
            "n_rows": row.n_rows,
            "max_tokens": row.max_tokens,
            "seed": row.seed,
            "layers": row.layers,
            "paraphraser": row.paraphraser,
        }
    )
