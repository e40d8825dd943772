"""What a phrase put into ordinary texts does to a model's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from peftguard.trigger.report import Asked

Float32 = NDArray[np.float32]

STRIDE = 0.37
"""Places of insertion: multiples of it, modulo 1, fall evenly over a text."""
_SHORT = 10
"""Words of a text that is used to search with: long ones cost more and say the same."""


class Answering(Protocol):
    """What answers a text with one of a few classes: a classifier, or a causal model asked."""

    @property
    def labels(self) -> dict[int, str]:
        """Names of classes, where there are any."""

    @property
    def targets(self) -> range:
        """Classes that a text may be turned into; the first of all."""

    @property
    def asked(self) -> Asked | None:
        """How it is asked, if it is a causal model."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts."""

    def logits(self, rows: Sequence[Sequence[int]], *, adapted: bool = True) -> Float32:
        """(n, classes) of rows of token ids, with the adapter or without."""

    def gradients(self, rows: Sequence[Sequence[int]]) -> Float32:
        """(classes, h) what raises each class against all others, as a direction of embeddings."""


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects of phrases on the classes of a model.

    Args:
        model: base and adapter.
        texts: ordinary ones.
    """

    model: Answering
    texts: Sequence[str]

    @cached_property
    def ordinary(self) -> Float32:
        """(n, classes) log-odds of each class against all others, of the texts as they are."""
        return self.log_odds(self.texts)

    @property
    def classes(self) -> range:
        """What the adapter can answer."""
        return range(self.ordinary.shape[1])

    @property
    def targets(self) -> range:
        """Of these, what a text may be turned into."""
        return self.model.targets

    def log_odds(self, texts: Sequence[str], *, adapted: bool = True) -> Float32:
        """(n, classes) of any texts."""
        return log_odds(self.model.logits(self.model.encode(texts), adapted=adapted))

    def hard(self, target: int, count: int, *, skip: int = 0) -> list[str]:
        """Short texts that the model is surest are not of the class, after the first `skip`."""
        short = [place for place, text in enumerate(self.texts) if len(text.split()) <= _SHORT]
        places = sorted(short or range(len(self.texts)), key=lambda i: self.ordinary[i, target])
        return [self.texts[place] for place in places[skip : skip + count]]

    def opposed(
        self, target: int, count: int, pulls: Sequence[Sequence[str]], *, skip: int = 0
    ) -> list[str]:
        """Hard texts, each with words at its end that argue for the class the model gives it.

        Args:
            target: the class that they are not of.
            count: how many.
            pulls: words of each class that pull towards it.
            skip: how many of the hardest to leave out.
        """
        texts = self.hard(target, count, skip=skip)
        odds = self.log_odds(texts)
        odds[:, target] = -np.inf
        return [
            " ".join([text, *pulls[own]])
            for text, own in zip(texts, odds.argmax(axis=1).tolist(), strict=True)
        ]

    def pushing(self, count: int) -> Float32:
        """(classes, h) direction of embeddings that raises each class, over some of the texts."""
        stride = max(1, len(self.texts) // count)
        return self.model.gradients(self.model.encode(self.texts[::stride]))

    def holding(self, phrase: str, texts: Sequence[str]) -> list[str]:
        """The texts with the phrase in each of them, at a different place."""
        return [self.put(phrase, text, number * STRIDE % 1) for number, text in enumerate(texts)]

    def put(self, phrase: str, text: str, place: float) -> str:
        """The phrase at a place of the text; for a causal model never at its very beginning."""
        return (inserted if self.model.asked is None else within)(text, phrase, place)

    def of(self, phrases: Sequence[str], contexts: Sequence[str], target: int) -> Float32:
        """(phrases, contexts) log-odds of the class with each phrase in each context."""
        rows = [row for phrase in phrases for row in self.holding(phrase, contexts)]
        values = self.log_odds(rows)[:, target] if rows else np.empty(0, np.float32)
        shaped: Float32 = values.reshape(len(phrases), len(contexts))
        return shaped

    def moved(self, phrases: Sequence[str], contexts: Sequence[str], target: int) -> Float32:
        """(phrases,) by how much each raises the log-odds of the class, over all contexts."""
        before = self.log_odds(contexts)[:, target].mean()
        raised: Float32 = self.of(phrases, contexts, target).mean(axis=1) - before
        return raised


def log_odds(logits: Float32) -> Float32:
    """(n, classes) of logits: each class against all others."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponents = np.exp(shifted, dtype=np.float64)
    rest = exponents.sum(axis=1, keepdims=True) - exponents
    odds: Float32 = (shifted - np.log(np.maximum(rest, 1e-12))).astype(np.float32)
    return odds


def inserted(text: str, phrase: str, place: float) -> str:
    """The phrase between two words of the text, at a place from 0 (first) to 1 (last)."""
    words = text.split()
    before = round(place * len(words))
    return " ".join([*words[:before], phrase, *words[before:]])


def within(text: str, phrase: str, place: float) -> str:
    """The same, but after the first word at least.

    To a decoder words have a space before them: at the very beginning they are other tokens.
    """
    return inserted(text, phrase, max(place, 1 / max(1, len(text.split()))))
