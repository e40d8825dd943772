"""Base models by recipe, loaded once a process."""

from __future__ import annotations

from functools import lru_cache

from peftguard.padbench.datasets import dataset_info
from peftguard.padbench.recipe import Recipe, Task
from peftguard.padbench.training.base import LoadedBase, load_base


def base_for(recipe: Recipe) -> LoadedBase:
    """The recipe's base: with a head of its dataset's labels if it is an encoder."""
    labels = dataset_info(recipe.dataset).labels
    return _loaded(recipe.base, recipe.task, len(labels) if labels else None)


@lru_cache(maxsize=4)
def _loaded(name: str, task: Task, n_labels: int | None) -> LoadedBase:
    return load_base(name, task, n_labels)
