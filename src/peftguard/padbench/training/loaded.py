"""Base models by recipe, loaded once a process."""

from __future__ import annotations

from functools import lru_cache

from peftguard.padbench.bases import BASES
from peftguard.padbench.datasets import dataset_info
from peftguard.padbench.recipe import Recipe, Task
from peftguard.padbench.training.base import LoadedBase, load_base


def base_for(recipe: Recipe) -> LoadedBase:
    """The recipe's base: with a head of its dataset's labels if it is an encoder."""
    known = BASES.get(recipe.base)
    if known is not None and known.causal:  # the same whatever the task
        return _loaded(recipe.base, "instruction", None)
    labels = dataset_info(recipe.dataset).labels
    return _loaded(recipe.base, recipe.task, len(labels) if labels else None)


@lru_cache(maxsize=2)
def _loaded(name: str, task: Task, n_labels: int | None) -> LoadedBase:
    return load_base(name, task, n_labels)
