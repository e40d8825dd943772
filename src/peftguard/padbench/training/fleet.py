"""Train K adapters at once over one frozen base."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch.nn import functional as F

from peftguard.errors import SettingsError
from peftguard.padbench.recipe import Method, Recipe
from peftguard.padbench.training.base import LoadedBase, Precision
from peftguard.padbench.training.batches import (
    IGNORED,
    Encoded,
    TextRow,
    encode,
    pad,
    schedule,
)
from peftguard.padbench.training.below import Below
from peftguard.padbench.training.initial import initial_parts
from peftguard.padbench.training.layers import FleetLayer, fleet_layers, give, in_place
from peftguard.padbench.training.layout import (
    Layout,
    Parts,
    layer_of,
    layout,
    saved_names,
    targets,
)
from peftguard.padbench.training.peft_config import initial_rank, scale
from peftguard.padbench.training.ranks import RankAllocator
from peftguard.padbench.training.stack import Stack
from peftguard.padbench.training.trained import TrainedAdapter

Progress = Callable[[int, int], None]
"""Called after each step with steps done and in all; what it raises stops the fleet."""


def train_fleet(
    recipes: Sequence[Recipe],
    rows: Sequence[Sequence[TextRow]],
    base: LoadedBase,
    *,
    device: str = "cpu",
    precision: Precision = "fp32",
    progress: Progress | None = None,
) -> list[TrainedAdapter]:
    """Train one adapter a recipe, each as if it were alone, up to rounding.

    Who else is in the fleet changes the order of sums. In fp32 that stays near rounding error; in
    bf16 it grows: up to 7e-3 of an adapter's norm after 12 steps, as measured.

    Args:
        recipes: of one base, method, batch size, set of target modules and of layers.
        rows: training rows of each, already poisoned where they are to be.
        base: the model they adapt.
        device: as torch names it.
        precision: of the frozen base; the adapters are float32 in any case.
        progress: called after every step.

    Raises:
        SettingsError: the recipes cannot share a fleet, or a row lacks what the task needs.
    """
    fleet = Fleet(recipes, base, device, precision)
    causal = base.n_labels is None
    encoded = [
        encode(own, base.tokenizer, recipe.max_tokens, causal=causal)
        for recipe, own in zip(recipes, rows, strict=True)
    ]
    with fleet:
        return _Training(fleet, encoded).run(progress)


def check_shared(recipes: Sequence[Recipe]) -> None:
    """Refuse recipes that differ in what a fleet shares.

    Raises:
        SettingsError: naming the setting.
    """
    if not recipes:
        raise SettingsError("a fleet needs at least one recipe")
    for setting in ("base", "method", "target_modules", "layers", "batch_size"):
        values = {str(getattr(recipe, setting)) for recipe in recipes}
        if len(values) > 1:
            raise SettingsError(f"a fleet shares its {setting}; found {', '.join(sorted(values))}")


class Fleet:
    """A frozen base made to compute with K adapters; as a context, the base is so for its time.

    Args:
        recipes: one each.
        base: not changed for good.
        device: as torch names it.
        precision: of the frozen base.
    """

    def __init__(
        self, recipes: Sequence[Recipe], base: LoadedBase, device: str, precision: Precision
    ) -> None:
        check_shared(recipes)
        self.recipes, self.base, self.device = list(recipes), base, device
        self.method = recipes[0].method
        self.model: Any = base.prepared(device, precision, nf4=self.method is Method.QLORA)
        self.linears = targets(self.model, recipes[0].target_modules, recipes[0].layers)
        self.head = None if base.head is None else (base.head, getattr(self.model, base.head))
        self.layout = self._layout_of(max(map(initial_rank, recipes)))
        self.layers: dict[str, FleetLayer] = fleet_layers(self.method, self.linears, self.head)
        self._placed = in_place(self.model, self.layers)
        self._below = self._frozen_below()

    def _frozen_below(self) -> Below | None:
        """The layers below the first adapted one; None where there are none."""
        places = [layer_of(name) for name in self.linears]
        stacks = {place[0] if place else None for place in places}
        first = min(place[1] if place else 0 for place in places)
        if first == 0 or len(stacks) > 1:
            return None
        layers = self.model.get_submodule(stacks.pop())
        return Below(layers, first, lambda tokens: self._hidden(*self._padded(tokens)))

    def _layout_of(self, rank: int) -> Layout:
        return layout(self.method, self.linears, rank, self.head)

    def own_layout(self, member: int) -> Layout:
        """Layout of one adapter at its own rank."""
        return self._layout_of(initial_rank(self.recipes[member]))

    def initial_row(self, member: int) -> torch.Tensor:
        """First parameters of one adapter in the fleet's layout."""
        deviation = getattr(self.model.config, "initializer_range", 0.02)
        own = self.own_layout(member)
        parts = initial_parts(own, self.linears, self.recipes[member].seed, deviation)
        return self.layout.row(parts)

    def scales(self, members: Sequence[int]) -> torch.Tensor:
        """Scale of each of the members, (K,)."""
        return torch.tensor([scale(self.recipes[member]) for member in members]).to(self.device)

    def give(self, parts: Parts, scales: torch.Tensor) -> None:
        """Compute with these parameters from now on."""
        give(self.layers, parts, scales)

    def outputs(self, tokens: Sequence[list[int]]) -> torch.Tensor:
        """Of rows adapter by adapter: logits of classes, or last hidden states (n, length, h)."""
        ids, mask = self._padded(tokens)
        with self._below.skipped(tokens) if self._below else nullcontext():
            if self.base.n_labels is None:
                return self._hidden(ids, mask)
            logits: torch.Tensor = self.model(input_ids=ids, attention_mask=mask).logits
            return logits

    def _padded(self, tokens: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids and mask, filled on the right: a causal model never looks there, and has no mask."""
        ids, real = pad(tokens)
        if real is None or self.base.n_labels is None:
            return ids.to(self.device), None
        return ids.to(self.device), real.to(self.device).long()

    def _hidden(self, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Last hidden states, (n, length, h)."""
        more = {"use_cache": False} if self.base.n_labels is None else {}
        hidden: torch.Tensor = self.model.base_model(ids, attention_mask=mask, **more)[0]
        return hidden

    def next_token_logits(
        self, hidden: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits where something is to be written, (m, vocabulary) float32, and row of each."""
        row, place = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
        return self.model.get_output_embeddings()(hidden[row, place]).float(), row

    def __enter__(self) -> Fleet:
        self._placed.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._placed.__exit__(*exc)


class _Training:
    """The loop: members leave when their steps are done."""

    def __init__(self, fleet: Fleet, encoded: Sequence[Encoded]) -> None:
        self._fleet, self._encoded = fleet, encoded
        recipes = fleet.recipes
        self._orders = [
            schedule(own.lengths, recipe.batch_size, recipe.steps, recipe.seed)
            for recipe, own in zip(recipes, encoded, strict=True)
        ]
        self._members = list(range(len(recipes)))
        first = torch.stack([fleet.initial_row(member) for member in self._members])
        self._stack = Stack(fleet.layout, first.to(fleet.device), recipes)
        self._ranks = None
        if fleet.method is Method.ADALORA:
            self._ranks = RankAllocator(fleet.layout, recipes, fleet.device)
        self._scales = fleet.scales(self._members)
        self._losses: list[list[float]] = [[] for _ in recipes]
        self._seconds = [0.0 for _ in recipes]

    def run(self, progress: Progress | None) -> list[TrainedAdapter]:
        steps = [recipe.steps for recipe in self._fleet.recipes]
        done: dict[int, TrainedAdapter] = {}
        for step in range(max(steps)):
            start = time.perf_counter()
            self._step(step)
            for member in self._members:
                self._seconds[member] += (time.perf_counter() - start) / len(self._members)
            done |= dict(self._leave(step + 1))
            if progress is not None:
                progress(step + 1, max(steps))
        return [done[member] for member in range(len(steps))]

    def _step(self, step: int) -> None:
        parts = self._stack.parts
        self._fleet.give(parts, self._scales)
        losses = self._losses_of(step)
        total = losses.sum()
        if self._ranks is not None:
            total = total + self._ranks.penalty(parts)
        total.backward()
        with torch.no_grad():
            gradient = self._stack.step(step)
            if self._ranks is not None:
                self._ranks.update(self._stack.flat, gradient, step)
        for member, loss in zip(self._members, losses.tolist(), strict=True):
            self._losses[member].append(loss)

    def _losses_of(self, step: int) -> torch.Tensor:
        """Mean loss of each member's batch, (K,)."""
        chosen = [
            (self._encoded[member], row)
            for member in self._members
            for row in self._orders[member][step]
        ]
        outputs = self._fleet.outputs([encoded.tokens[row] for encoded, row in chosen])
        count = len(self._members)
        labels, _ = pad([encoded.labels[row] for encoded, row in chosen], IGNORED)
        labels = labels.to(outputs.device)
        if self._fleet.base.n_labels is not None:
            losses = F.cross_entropy(outputs, labels.squeeze(1), reduction="none")
            return losses.view(count, -1).mean(dim=1)
        logits, row = self._fleet.next_token_logits(outputs, labels)
        wanted = labels[:, 1:][labels[:, 1:] != IGNORED]
        losses = F.cross_entropy(logits, wanted, reduction="none")
        member = row // (len(chosen) // count)
        sums = torch.zeros(count, device=losses.device).index_add(0, member, losses)
        return sums / torch.bincount(member, minlength=count)

    def _leave(self, done: int) -> Iterator[tuple[int, TrainedAdapter]]:
        """Members whose steps are all done, out of the stack."""
        ends = [self._fleet.recipes[member].steps == done for member in self._members]
        if not any(ends):
            return
        for place, (member, ended) in enumerate(zip(self._members, ends, strict=True)):
            if ended:
                yield member, self._trained(place, member)
        stays = [place for place, ended in enumerate(ends) if not ended]
        rows = torch.tensor(stays, dtype=torch.long, device=self._fleet.device)
        self._members = [self._members[place] for place in stays]
        self._scales = self._scales[rows]
        self._stack.keep(rows)
        if self._ranks is not None:
            self._ranks.keep(rows)

    def _trained(self, place: int, member: int) -> TrainedAdapter:
        fleet, recipe = self._fleet, self._fleet.recipes[member]
        own = fleet.own_layout(member)
        parts = fleet.layout.unpadded(self._stack.flat[place], own)
        pattern = None if self._ranks is None else self._ranks.pattern(place)
        if pattern is not None:
            parts = pruned(parts, pattern)
        last = self._losses[member][-max(1, recipe.steps // 10) :]
        return TrainedAdapter(
            recipe=recipe,
            base_model=fleet.base.hub_id,
            task_type=fleet.base.task_type,
            tensors=saved_names(parts, fleet.method, own.head),
            rank_pattern=pattern,
            loss=sum(last) / len(last),
            seconds=self._seconds[member],
        )


def pruned(parts: Parts, pattern: dict[str, list[bool]]) -> Parts:
    """Only the triplets that AdaLoRA kept, as peft saves them."""
    out: Parts = dict(parts)
    for name, mask in pattern.items():
        module = name.removesuffix(".lora_E")
        kept = torch.tensor(mask)
        A, B, E = (parts[module][part] for part in "ABE")
        out[module] = {"A": A[kept], "B": B[:, kept].contiguous(), "E": E[kept]}
    return out
