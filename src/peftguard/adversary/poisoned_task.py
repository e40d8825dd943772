"""A base model with an adapter whose factors can be moved, and the rows that it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.keys.peft import PREFIX
from peftguard.mitigation.factored import Factored
from peftguard.padbench.recipe import Method, Recipe
from peftguard.padbench.texts import Texts

if TYPE_CHECKING:
    import torch

    from peftguard.adversary.differentiable import Pair
    from peftguard.padbench.training.base import LoadedBase
    from peftguard.padbench.training.batches import Encoded
    from peftguard.padbench.training.fleet import Fleet
    from peftguard.padbench.training.layout import Parts

_HALF = 8
"""Clean rows of a batch; as many poisoned ones stand beside them."""


class Losses(NamedTuple):
    """Mean cross-entropy over a batch of each kind."""

    task: torch.Tensor
    backdoor: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PoisonedTask:
    """What the adapter was trained to do.

    Args:
        recipe: of the adapter.
        texts: where its rows come from, poisoned ones among them.
        base: the model it adapts.
    """

    recipe: Recipe
    texts: Texts
    base: LoadedBase

    @contextmanager
    def running(self, adapter: Factored) -> Iterator[RunningTask]:
        """The base with the adapter in it, for as long as the context lasts.

        Raises:
            SettingsError: the dataset is missing.
        """
        from peftguard.padbench.training.base import fastest_precision
        from peftguard.padbench.training.batches import Encoded, encode
        from peftguard.padbench.training.fleet import Fleet

        rows = self.texts.training_rows(self.recipe)
        causal = self.base.n_labels is None
        own = [[row for row in rows if row.poisoned == kind] for kind in (False, True)]
        encoded = [
            encode(part, self.base.tokenizer, self.recipe.max_tokens, causal=causal)
            if part
            else Encoded([], [])
            for part in own
        ]
        fleet = Fleet([plain(self.recipe, [adapter])], self.base, "cpu", fastest_precision())
        with fleet:
            yield RunningTask(fleet, adapter, *encoded)


@dataclass(frozen=True, slots=True, eq=False)
class RunningTask:
    """The same while the base computes with the adapter.

    Args:
        fleet: of this one adapter.
        adapter: whose head and magnitudes stay.
        clean: rows with their right answers.
        poisoned: rows with the trigger and the target.
    """

    fleet: Fleet
    adapter: Factored
    clean: Encoded
    poisoned: Encoded

    def losses(self, updates: dict[str, Pair], rng: np.random.Generator) -> Losses:
        """Losses of random rows, as many of either kind, with these factors."""
        import torch

        self.fleet.give(self._parts(updates), torch.ones(1))
        chosen = [
            (rows, place)
            for rows in (self.clean, self.poisoned)
            for place in rng.choice(len(rows), min(_HALF, len(rows)), replace=False).tolist()
        ]
        n_clean = sum(rows is self.clean for rows, _ in chosen)
        each = self._losses(
            [rows.tokens[p] for rows, p in chosen], [r.labels[p] for r, p in chosen]
        )
        n_poisoned = max(1, len(each) - n_clean)  # a benign adapter has none
        return Losses(each[:n_clean].mean(), each[n_clean:].sum() / n_poisoned)

    def _losses(self, tokens: Sequence[list[int]], labels: Sequence[list[int]]) -> torch.Tensor:
        """Cross-entropy of every row, (n,)."""
        from torch.nn import functional as F

        from peftguard.padbench.training.batches import IGNORED, mean_by_row, pad

        outputs, wanted = self.fleet.outputs(tokens), pad(labels, IGNORED)[0]
        if self.fleet.base.n_labels is not None:
            return F.cross_entropy(outputs, wanted.squeeze(1), reduction="none")
        logits, row = self.fleet.next_token_logits(outputs, wanted)
        following = wanted[:, 1:]
        each = F.cross_entropy(logits, following[following != IGNORED], reduction="none")
        return mean_by_row(each, row, len(tokens))

    def _parts(self, updates: dict[str, Pair]) -> Parts:
        import torch

        parts: Parts = {}
        for module, (B, A) in updates.items():
            parts[module] = {"A": A[None], "B": B[None]}
            magnitude = self.adapter.layers[module].magnitude
            if magnitude is not None:
                parts[module]["magnitude"] = torch.from_numpy(magnitude)[None]
        for name, tensor in self.adapter.heads.items():
            module, _, part = name.removeprefix(PREFIX).rpartition(".")
            parts.setdefault(module, {})[part] = torch.from_numpy(tensor)[None]
        return parts


def plain(recipe: Recipe, adapters: Sequence[Factored]) -> Recipe:
    """The recipe of adapters whose scales are folded into B: LoRA or DoRA of scale 1."""
    layers = [layer for adapter in adapters for layer in adapter.layers.values()]
    rank = max(1, *(layer.rank for layer in layers))
    dora = any(layer.magnitude is not None for layer in layers)
    method = Method.DORA if dora else Method.LORA
    return recipe.model_copy(update={"method": method, "rank": rank, "alpha": float(rank)})


def folded(adapter: Factored) -> dict[str, NDArray[np.float32]]:
    """Tensors of an adapter in that form, by the names that peft saves LoRA under."""
    tensors = dict(adapter.heads)
    for module, layer in adapter.layers.items():
        start = f"{PREFIX}{module}.lora_"
        tensors[f"{start}A.weight"] = layer.A
        tensors[f"{start}B.weight"] = (layer.scale * layer.B).astype(np.float32)
        if layer.magnitude is not None:
            tensors[f"{start}magnitude_vector"] = layer.magnitude
    return tensors
