"""Which recipes train together."""

from __future__ import annotations

from collections.abc import Sequence

from peftguard.padbench.recipe import Recipe

Key = tuple[str, str, str, tuple[str, ...], int, int, tuple[int, ...]]


def fleets(
    recipes: Sequence[Recipe], max_members: int = 8, max_tokens_in_flight: int = 32_768
) -> list[list[Recipe]]:
    """Recipes in fleets, the same for the same recipes in any order.

    Members share what a fleet must share, and the dataset and length limit so that their rows are
    about equally long; within that, those with equally many steps stand together.

    Args:
        recipes: any number.
        max_members: most adapters at once.
        max_tokens_in_flight: most tokens of a batch over all members; bounds memory.
    """
    groups: dict[Key, list[Recipe]] = {}
    for recipe in sorted(recipes, key=lambda recipe: (recipe.steps, recipe.name)):
        groups.setdefault(_key(recipe), []).append(recipe)
    out = []
    for _, group in sorted(groups.items()):
        room = max_tokens_in_flight // (group[0].batch_size * group[0].max_tokens)
        size = max(1, min(max_members, room))
        out += [group[start : start + size] for start in range(0, len(group), size)]
    return out


def _key(recipe: Recipe) -> Key:
    shared = recipe.base, recipe.dataset, recipe.method.value
    limits = recipe.batch_size, recipe.max_tokens
    return *shared, recipe.target_modules, *limits, recipe.layers or ()
