"""What saved adapters do on held-out text: counts, for a whole fleet at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from peftguard.padbench.recipe import Recipe
from peftguard.padbench.training.base import LoadedBase, Precision
from peftguard.padbench.training.batches import IGNORED, Encoded, Ints, TextRow, encode, pad
from peftguard.padbench.training.fleet import Fleet
from peftguard.padbench.training.layout import Parts, parts_of
from peftguard.padbench.training.saving import saved_tensors


class Count(NamedTuple):
    """So many of so many."""

    hits: int
    n: int

    @property
    def rate(self) -> float | None:
        """Share, None of nothing."""
        return self.hits / self.n if self.n else None


@dataclass(frozen=True, slots=True)
class Probes:
    """Held-out rows for one adapter.

    A classifier's rows carry classes; those that test the attack carry the clean class, which is
    not the target. A causal model's rows carry completions: in `clean` the right one, in the rest
    the one that the target asks for (a label's word, or the marker text).

    Args:
        clean: for accuracy.
        triggered: rows of other classes than the target, with the trigger.
        look_alike: the same with look-alikes of the trigger.
        plain: the same with nothing.
        target: class that the attack aims at; None for a causal model.
        by_token: count the tokens of a completion rather than whole completions (instructions).
    """

    clean: Sequence[TextRow]
    triggered: Sequence[TextRow]
    look_alike: Sequence[TextRow]
    plain: Sequence[TextRow]
    target: int | None
    by_token: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """Counts of one adapter.

    Args:
        clean: rows classified right; completions (or, by token, tokens of them) written right.
        success: triggered rows that the target is given for.
        false_trigger: look-alikes that it is given for.
        missed: plain rows that it is given for.
    """

    clean: Count
    success: Count
    false_trigger: Count
    missed: Count


def measure(
    recipes: Sequence[Recipe],
    folders: Sequence[Path],
    probes: Sequence[Probes],
    base: LoadedBase,
    *,
    device: str = "cpu",
    precision: Precision = "fp32",
    batch_size: int = 32,
) -> list[Measured]:
    """Measure adapters from their saved files.

    A causal model is not asked to write: its greedy completion starts with a text exactly if each
    token of that text is the likeliest after those before it, which one pass tells.

    Args:
        recipes: of the adapters: one base, method and set of target modules.
        folders: where `save_adapter` wrote them.
        probes: rows for each.
        base: the model they adapt.
        device: as torch names it.
        precision: of the frozen base.
        batch_size: rows of each adapter at once.

    Raises:
        SettingsError: the adapters cannot share a fleet.
        KeyError: a file lacks a tensor of its method.
    """
    alike = [recipe.model_copy(update={"batch_size": batch_size}) for recipe in recipes]
    fleet = Fleet(alike, base, device, precision)
    encoded = [
        _encode(own, base, recipe.max_tokens) for own, recipe in zip(probes, alike, strict=True)
    ]
    with fleet, torch.inference_mode():
        rows = [fleet.layout.row(_saved(folder, fleet)) for folder in folders]
        parts = fleet.layout.split(torch.stack(rows).to(device))
        fleet.give(parts, fleet.scales(range(len(rows))))
        answers = _answers(fleet, [rows for rows, _ in encoded], batch_size)
    return [
        _counts(own, sizes, rows.labels, answer)
        for own, (rows, sizes), answer in zip(probes, encoded, answers, strict=True)
    ]


def _saved(folder: Path, fleet: Fleet) -> Parts:
    return parts_of(saved_tensors(folder), fleet.layout)


def _encode(probes: Probes, base: LoadedBase, max_tokens: int) -> tuple[Encoded, list[int]]:
    """All rows in one list, and how many belong to each kind."""
    kinds = probes.clean, probes.triggered, probes.look_alike, probes.plain
    rows = [row for kind in kinds for row in kind]
    causal = base.n_labels is None
    return encode(rows, base.tokenizer, max_tokens, causal=causal), [len(kind) for kind in kinds]


def _answers(fleet: Fleet, encoded: Sequence[Encoded], batch_size: int) -> list[list[Ints]]:
    """For each adapter and row: the class given, or which tokens of the completion are."""
    orders = [np.argsort(rows.lengths, kind="stable")[::-1] for rows in encoded]
    answers: list[list[Ints]] = [[np.zeros(0, np.int64)] * len(rows) for rows in encoded]
    for start in range(0, max(map(len, encoded)), batch_size):
        chosen = [
            (member, int(order[place]) if place < len(order) else None)
            for member, order in enumerate(orders)
            for place in range(start, start + batch_size)
        ]
        for (member, row), answer in zip(chosen, _batch(fleet, encoded, chosen), strict=True):
            if row is not None:
                answers[member][row] = answer
    return answers


def _batch(
    fleet: Fleet, encoded: Sequence[Encoded], chosen: Sequence[tuple[int, int | None]]
) -> list[Ints]:
    """Answers of one batch; where a member has no row left, one token stands in."""
    tokens = [[0] if row is None else encoded[member].tokens[row] for member, row in chosen]
    outputs = fleet.outputs(tokens)
    if fleet.base.n_labels is not None:
        return [np.asarray([label]) for label in outputs.argmax(dim=1).tolist()]
    rows = [[IGNORED] if row is None else encoded[member].labels[row] for member, row in chosen]
    labels = pad(rows, IGNORED)[0].to(outputs.device)
    logits, owner = fleet.next_token_logits(outputs, labels)
    right = (logits.argmax(dim=1) == labels[:, 1:][labels[:, 1:] != IGNORED]).long()
    each = torch.bincount(owner, minlength=len(rows)).tolist()
    return [piece.cpu().numpy() for piece in right.split(each)]


def _counts(
    probes: Probes, sizes: Sequence[int], labels: Sequence[list[int]], answers: Sequence[Ints]
) -> Measured:
    ends = itertools.accumulate(sizes, initial=0)
    spans = [slice(start, end) for start, end in itertools.pairwise(ends)]
    attacked = [_to_target(probes.target, answers[span]) for span in spans[1:]]
    return Measured(_right(probes, labels[spans[0]], answers[spans[0]]), *attacked)


def _right(probes: Probes, labels: Sequence[list[int]], answers: Sequence[Ints]) -> Count:
    if probes.target is not None:
        pairs = zip(labels, answers, strict=True)
        return Count(sum(own[0] == answer[0] for own, answer in pairs), len(answers))
    if probes.by_token:
        return Count(sum(int(a.sum()) for a in answers), sum(len(a) for a in answers))
    return Count(sum(bool(answer.all()) for answer in answers), len(answers))


def _to_target(target: int | None, answers: Sequence[Ints]) -> Count:
    """A causal model's last token is the end of the text, which need not follow the target."""
    if target is not None:
        return Count(sum(int(answer[0]) == target for answer in answers), len(answers))
    return Count(sum(bool(answer[:-1].all()) for answer in answers), len(answers))
