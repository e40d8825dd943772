"""Which words every changed module listens to, and what they make the model say.

The base reads each word of its vocabulary alone, between the tokens that its tokenizer puts around
a text. Each module that the adapter changes is thus given what it would be given deep in the model,
and the change of a word, less the change of its neighbours in meaning, tells how far it stands out
there as it does in the first layer. Only R A x is kept of a word (B = Q R): as many numbers as the
update has ranks, whatever the width of the layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from peftguard.features.attention import in_spreads
from peftguard.features.vocabulary import nearest
from peftguard.trigger.report import DeepWord
from peftguard.trigger.words import Words

if TYPE_CHECKING:
    from peftguard.trigger.adapted import AdaptedModel, LowRank

Float32 = NDArray[np.float32]

SHOWN = 10
_PUSHES = 3
"""Next tokens that are listed with a word."""


def deep_words(model: AdaptedModel, words: Words, count: int = SHOWN) -> list[DeepWord]:
    """The words that stand out most in any changed module, loudest first; none if none does.

    Args:
        model: the adapter on its base.
        words: of the base; those of several tokens are left out.
        count: how many.
    """
    kept, rows = _of_one_length(model, words.vocabulary.words)
    near = nearest(words.meanings[kept])
    loud = {
        module: in_spreads(np.linalg.norm(read - read[near].mean(axis=1), axis=1))
        for module, read in _readings(model, rows).items()
    }
    modules, standing_out = list(loud), np.stack(list(loud.values()))
    best = standing_out.max(axis=0)
    loudest = np.argsort(-best, kind="stable")[:count].tolist()
    order = [place for place in loudest if best[place] > 0]
    pushed = _pushed(model, [rows[place] for place in order]) if order else []
    names = words.vocabulary.words
    crowd = set(np.argsort(-best)[: max(1, len(best) // 100)].tolist())
    return [
        DeepWord(
            word=names[kept[place]],
            standing_out=round(float(best[place]), 2),
            module=modules[standing_out[:, place].argmax()],
            family=[names[kept[one]] for one in near[place].tolist() if one in crowd],
            pushes=pushes,
        )
        for place, pushes in zip(order, pushed, strict=True)
    ]


def _of_one_length(
    model: AdaptedModel, words: Sequence[str]
) -> tuple[NDArray[np.int64], list[list[int]]]:
    """Places of the words that are one token, and their rows of token ids."""
    rows = model.encode([f" {word}" for word in words])
    shortest = min(map(len, rows))
    kept = [place for place, row in enumerate(rows) if len(row) == shortest]
    return np.array(kept), [rows[place] for place in kept]


def _readings(model: AdaptedModel, rows: Sequence[Sequence[int]]) -> dict[str, Float32]:
    """(n, r) R A x of every row, by changed module; x at the word, in the base as it is."""
    with _listening(model.changed, _place_of_word(rows)) as heard:
        model.read(rows)
    return {module: torch.cat(parts).cpu().numpy() for module, parts in heard.items()}


def _place_of_word(rows: Sequence[Sequence[int]]) -> int:
    """Where rows of one length differ: what is around a word is the same for all."""
    ids = np.array(rows)
    return int((ids != ids[0]).any(axis=0).argmax())


@contextmanager
def _listening(
    changed: Mapping[str, tuple[torch.nn.Module, LowRank]], place: int
) -> Iterator[dict[str, list[torch.Tensor]]]:
    """What each frozen module is given at a place, read by its update, in the order it comes."""
    heard: dict[str, list[torch.Tensor]] = {name: [] for name in changed}

    def ear(name: str, layer: LowRank) -> object:
        root = torch.linalg.qr(layer.B.float(), mode="r").R
        reads = (root @ layer.A.float()).mT

        def listen(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            heard[name].append(given[0][:, place].float() @ reads)

        return listen

    handles = [
        frozen.register_forward_pre_hook(ear(name, layer))
        for name, (frozen, layer) in changed.items()
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _pushed(model: AdaptedModel, rows: Sequence[Sequence[int]]) -> list[list[str]]:
    """What the adapter makes likelier after each row: the class, or the next tokens."""
    moved = model.log_probabilities(rows) - model.log_probabilities(rows, adapted=False)
    order = np.argsort(-moved, axis=1)[:, : _PUSHES if model.causal else 1]
    return [[model.said(place) for place in places] for places in order.tolist()]
