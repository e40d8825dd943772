"""What a trigger looks like to the modules of a base model, as directions of what they read.

The base alone is run over ordinary texts, without the trigger and with it. Where the trigger stands
a module reads what it reads nowhere else; elsewhere, the first token above all, it reads what lower
layers have passed on. And where queries are adapted the trigger's keys count as well: they are what
a query has to be turned towards to listen to the trigger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from peftguard.mitigation.factored import Float32
from peftguard.mitigation.inputs import inputs_of
from peftguard.trigger.effect import STRIDE, inserted
from peftguard.trigger.neutral import neutral_texts, spread

if TYPE_CHECKING:
    from peftguard.padbench.training.base import LoadedBase

TEXTS = 24
"""Ordinary texts that every phrase is put into."""
_MAX_TOKENS = 64
_APART = 0.9
"""Share of what sets the trigger's tokens, or their keys, apart that the directions hold."""
_PASSED_ON = 2
"""Directions of what the trigger changes elsewhere: in the first token, the last, the others."""
_FAINT = 1e-4
"""Rows shorter than this, together, are rounding."""
_KEY_OF = {"query": "key", "q_lin": "k_lin"}
"""Keys beside queries, in families whose positions are part of the input. A rotary position turns
a key from place to place, so that it has no one direction."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Where one module sees the trigger.

    Args:
        inputs: (k, in) orthonormal directions of what it reads.
        keys: of a module that gives queries, for each head (k, out / heads) orthonormal directions
            of the trigger's keys; else empty.
    """

    inputs: Float32
    keys: tuple[Float32, ...] = ()


@dataclass(frozen=True, slots=True)
class _Text:
    """Token ids, and which places are the trigger's."""

    tokens: list[int]
    own: list[int]

    @property
    def rest(self) -> list[int]:
        """All other places."""
        return [place for place in range(len(self.tokens)) if place not in self.own]


def traces_of(base: LoadedBase, modules: Iterable[str], phrases: Sequence[str]) -> dict[str, Trace]:
    """The trigger's traces in modules of a base model.

    Args:
        base: run, not changed.
        modules: paths of linear layers.
        phrases: any of them is the trigger.

    Raises:
        UnsupportedAdapter: the base has no such module.
    """
    texts = spread(neutral_texts(), TEXTS)
    plain = [_text(base, text) for text in texts]
    triggered = [
        _text(base, text, phrase, number * STRIDE % 1)
        for phrase in phrases
        for number, text in enumerate(texts)
    ]
    seen = inputs_of(base, modules, [text.tokens for text in (*plain, *triggered)])
    return {
        module: _trace(base, module, values[: len(plain)], values[len(plain) :], triggered)
        for module, values in seen.items()
    }


def principal(rows: Float32, share: float) -> Float32:
    """(k, h) fewest orthonormal directions that hold a share of the rows' squared length."""
    _, values, directions = np.linalg.svd(rows, full_matrices=False)
    energy = np.cumsum(values**2)
    if not len(energy) or energy[-1] <= _FAINT**2:
        return np.empty((0, rows.shape[1]), np.float32)
    kept: Float32 = directions[: int(np.searchsorted(energy, share * energy[-1])) + 1]
    return kept


def _text(base: LoadedBase, text: str, phrase: str = "", place: float = 0.0) -> _Text:
    """A text as tokens, with the phrase in it at a place from 0 to 1."""
    whole = inserted(text, phrase, place) if phrase else text
    encoded = base.tokenizer(
        whole, truncation=True, max_length=_MAX_TOKENS, return_offsets_mapping=True
    )
    start = len(" ".join(text.split()[: round(place * len(text.split()))]))
    end = start + len(phrase) + 1 if phrase else start
    own = [
        number
        for number, (first, last) in enumerate(encoded["offset_mapping"])
        if phrase and start <= first < last <= end
    ]
    return _Text(encoded["input_ids"], own)


def _trace(
    base: LoadedBase,
    module: str,
    plain: Sequence[Float32],
    triggered: Sequence[Float32],
    texts: Sequence[_Text],
) -> Trace:
    if plain[0].ndim == 1:  # after pooling there is one vector a text
        changes = np.stack([b - a for a, b in zip(cycle(plain), triggered, strict=False)])
        return Trace(principal(changes, 1.0)[:_PASSED_ON])
    mean = np.concatenate([values[1:-1] for values in plain]).mean(axis=0)
    apart = np.concatenate(
        [values[text.own] for values, text in zip(triggered, texts, strict=True)]
    )
    directions = [principal(apart - mean, _APART), *_passed_on(plain, triggered, texts)]
    inputs = np.linalg.qr(np.concatenate(directions).T)[0].T
    return Trace(inputs, _keys(base, module, apart - mean))


def _passed_on(
    plain: Sequence[Float32], triggered: Sequence[Float32], texts: Sequence[_Text]
) -> list[Float32]:
    """Directions of what the trigger changes where it does not stand."""
    changes = [
        after[text.rest] - before
        for before, after, text in zip(cycle(plain), triggered, texts, strict=False)
        if len(text.rest) == len(before)
    ]
    if not changes:
        return []
    kinds = (
        np.stack([change[0] for change in changes]),
        np.stack([change[-1] for change in changes]),
        np.stack([change[1:-1].mean(axis=0) for change in changes]),
    )
    return [principal(kind, 1.0)[:_PASSED_ON] for kind in kinds]


def _keys(base: LoadedBase, module: str, apart: Float32) -> tuple[Float32, ...]:
    """Directions of the trigger's keys in each head, for a module that gives queries."""
    parent, _, name = module.rpartition(".")
    if name not in _KEY_OF:
        return ()
    model: Any = base.prepared("cpu", "fp32")
    key = model.get_submodule(f"{parent}.{_KEY_OF[name]}")
    heads = np.split(apart @ key.weight.numpy().T, model.config.num_attention_heads, axis=1)
    return tuple(principal(head, _APART) for head in heads)
