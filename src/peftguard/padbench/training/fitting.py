"""How many adapters fit a device at once, and what is done when that was too many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from peftguard.errors import SettingsError
from peftguard.padbench.bases import Base, base_named
from peftguard.padbench.recipe import Method, Recipe
from peftguard.padbench.training.memory import release
from peftguard.padbench.training.peft_config import initial_rank

if TYPE_CHECKING:
    from peftguard.padbench.training.base import LoadedBase, Precision

Made = TypeVar("Made")

MOST_AT_ONCE = 256
"""Adapters of a job that is cut to what fits; what a kill can lose."""
_SHARE = 0.8
"""Of the free memory: the rest is for what an estimate leaves out."""
_COPIES = 8
"""Of an adapter's parameters: themselves, gradient, two moments, rates, and a step's own."""
_MEASURED_ROWS = 32
"""Rows of each adapter that are measured at once."""


def members_that_fit(free: int, each: int, most: int = MOST_AT_ONCE) -> int:
    """Adapters in a fleet, at least one.

    Args:
        free: bytes free on the device with the base on it.
        each: bytes that an adapter takes, as `bytes_of_member` estimates.
        most: never more.
    """
    return max(1, min(most, int(_SHARE * free) // each))


def bytes_of_member(base: Base, recipe: Recipe, *, vocabulary: int, width: int) -> int:
    """Estimated bytes that one more adapter takes while it is trained or measured.

    Args:
        base: its widths.
        recipe: its rank, targets, batch and length.
        vocabulary: of a causal model; 0 for a classifier.
        width: bytes of an activation: 4 or 2.
    """
    n_layers = base.n_layers - min(recipe.layers or (0,))
    adapted = len(recipe.layers) if recipe.layers else None
    parameters = base.adapter_parameters(recipe.target_modules, initial_rank(recipe), adapted)
    tokens = recipe.batch_size * recipe.max_tokens
    # A layer keeps about 16 vectors of the model's width a token for the way back, and 4 of the
    # feed-forward's; attention is fused. Logits are taken where a completion stands, half at most.
    kept = tokens * n_layers * width * (16 * base.hidden + 4 * base.ffn)
    written = max(3 * recipe.batch_size, 2 * _MEASURED_ROWS) * (recipe.max_tokens // 2)
    passing = _MEASURED_ROWS * recipe.max_tokens * width * (4 * base.hidden + 2 * base.ffn)
    return 4 * _COPIES * parameters + max(kept, passing) + 4 * vocabulary * written


def cut_to_fit(
    recipes: Sequence[Recipe], base: LoadedBase, device: str, precision: Precision
) -> list[list[Recipe]]:
    """A job's recipes in fleets that fit what is free on a GPU, its base already on it."""
    import torch

    from peftguard.padbench.training.below import ROOM

    base.prepared(device, precision, nf4=recipes[0].method is Method.QLORA)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    vocabulary = 0 if base.n_labels is not None else int(base.model.config.vocab_size)
    width = 2 if precision == "bf16" else 4
    shape = base_named(recipes[0].base)
    each = max(
        bytes_of_member(shape, recipe, vocabulary=vocabulary, width=width) for recipe in recipes
    )
    states = ROOM if min(recipes[0].layers or (0,)) > 0 else 0
    size = members_that_fit(free - states, each)
    return [list(recipes[start : start + size]) for start in range(0, len(recipes), size)]


def in_halves(
    recipes: Sequence[Recipe], run: Callable[[Sequence[Recipe]], list[Made]]
) -> list[Made]:
    """Run a fleet; where memory runs out, its halves one after the other, and so on.

    Raises:
        SettingsError: not even one adapter fits.
    """
    try:
        return run(recipes)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
    # Only here has the error let go of the tensors that its frames held.
    if len(recipes) == 1:
        raise SettingsError(
            f"{recipes[0].name}: memory runs out with this adapter alone; "
            "lower batch_size or max_tokens, or use bf16"
        )
    release()
    half = len(recipes) // 2
    return [*in_halves(recipes[:half], run), *in_halves(recipes[half:], run)]


def _is_out_of_memory(error: Exception) -> bool:
    """The CPU's allocator has no error of its own, only a text."""
    import torch

    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)
