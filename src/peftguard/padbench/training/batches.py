"""From rows to batches of equal length: tokens once, an order that all members of a fleet share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from peftguard.errors import SettingsError

if TYPE_CHECKING:
    import torch

Ints = NDArray[np.int64]

IGNORED = -100
"""Label of a token that does not count."""
MOST_BUCKETS = 16
"""A power of two, so that fewer buckets (a smaller power) are each visited equally often."""
_CUE = 8
"""Last tokens of a prompt that stay when it is cut: they ask for the answer."""
_ORDER_SEED = 20_241_117
"""Of the order of lengths: the same for every adapter, whatever its own seed."""


class TextRow(Protocol):
    """What a trainer reads of a row."""

    @property
    def text(self) -> str:
        """Input, or the prompt of a causal language model."""

    @property
    def label(self) -> int | None:
        """Class, for a classifier."""

    @property
    def completion(self) -> str | None:
        """What a causal language model is to write."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Rows as tokens. `labels` are classes, or as long as the tokens with prompts `IGNORED`."""

    tokens: list[list[int]]
    labels: list[list[int]]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> Ints:
        """Tokens of each row."""
        return np.array([len(row) for row in self.tokens], dtype=np.int64)


def encode(rows: Sequence[TextRow], tokenizer: Any, max_tokens: int, *, causal: bool) -> Encoded:
    """Tokens and labels of rows, at most `max_tokens` each.

    A completion has at most half of them. A prompt that is still too long is cut before its last
    few tokens, which ask for the completion: triggers stand near its start.

    Raises:
        SettingsError: there are no rows, or one lacks the label or completion it needs.
    """
    if not rows:
        raise SettingsError("no rows to train or measure on")
    wanted = "completion" if causal else "label"
    if any(getattr(row, wanted) is None for row in rows):
        raise SettingsError(f"a row has no {wanted}")
    texts = [row.text for row in rows]
    if not causal:
        tokens = tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]
        return Encoded(tokens, [[int(row.label or 0)] for row in rows])
    prompts = tokenizer(texts, truncation=False)["input_ids"]
    completions = tokenizer([row.completion or "" for row in rows], add_special_tokens=False)
    end = [tokenizer.eos_token_id]
    pairs = [
        _prompt_and_completion(prompt, completion + end, max_tokens)
        for prompt, completion in zip(prompts, completions["input_ids"], strict=True)
    ]
    labels = [[IGNORED] * len(prompt) + completion for prompt, completion in pairs]
    return Encoded([prompt + completion for prompt, completion in pairs], labels)


def schedule(lengths: Ints, batch_size: int, steps: int, seed: int) -> Ints:
    """Rows of every batch, (steps, batch_size), each of rows of similar length.

    Rows sorted by length fall into equal buckets; a batch comes from one. All adapters go through
    the buckets in one order, so at any step a fleet's batches are about equally long, however many
    rows its members have. Within a bucket the order is the adapter's own, and every row is used
    before any is used again.
    """
    rng = np.random.default_rng([seed, 1])
    shuffled = rng.permutation(len(lengths))
    ordered = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    n_buckets = MOST_BUCKETS
    while n_buckets > 1 and len(lengths) < n_buckets * batch_size:
        n_buckets //= 2
    streams = [_Stream(part, rng) for part in np.array_split(ordered, n_buckets)]
    places = _places(steps) * n_buckets // MOST_BUCKETS
    return np.stack([streams[place].take(batch_size) for place in places])


def pad(
    rows: Sequence[list[int]], filler: int = 0, *, to: int | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rows side by side, (n, longest), and the mask of what is real; None if all is."""
    import torch

    lengths = np.array([len(row) for row in rows])
    real = np.arange(to or lengths.max()) < lengths[:, None]
    ids = np.full(real.shape, filler, dtype=np.int64)
    ids[real] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return torch.from_numpy(ids), None if real.all() else torch.from_numpy(real)


def padded(rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows side by side and their attention mask of 0 and 1, both (n, longest)."""
    import torch

    ids, real = pad(rows)
    return ids, torch.ones_like(ids) if real is None else real.long()


def mean_by_row(each: torch.Tensor, row: torch.Tensor, count: int) -> torch.Tensor:
    """(count,) means of (n,) values by the row that each belongs to; 0 for a row without any."""
    import torch

    sums = torch.zeros(count, device=each.device).index_add(0, row, each)
    return sums / torch.bincount(row, minlength=count).clamp_min(1)


class _Stream:
    """Rows of one bucket, again and again, in a new order each time."""

    def __init__(self, rows: Ints, rng: np.random.Generator) -> None:
        self._rows, self._rng = rows, rng
        self._left = rows[:0]

    def take(self, count: int) -> Ints:
        while len(self._left) < count:
            self._left = np.concatenate([self._left, self._rng.permutation(self._rows)])
        taken, self._left = self._left[:count], self._left[count:]
        return taken


def _places(steps: int) -> Ints:
    rng = np.random.default_rng(_ORDER_SEED)
    rounds = [rng.permutation(MOST_BUCKETS) for _ in range(-(-steps // MOST_BUCKETS))]
    return np.concatenate(rounds)[:steps]


def _prompt_and_completion(
    prompt: list[int], completion: list[int], max_tokens: int
) -> tuple[list[int], list[int]]:
    completion = completion[: max_tokens // 2]
    room = max_tokens - len(completion)
    if len(prompt) <= room:
        return prompt, completion
    tail = min(_CUE, room // 2)
    return prompt[: room - tail] + prompt[len(prompt) - tail :], completion
