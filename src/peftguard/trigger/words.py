"""The words to try: those that an adapter makes the first attention layer listen to, alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from peftguard.features.attention import above_crowd, standing_alone
from peftguard.features.vocabulary import Vocabulary
from peftguard.features.weights import Weights

Float32 = NDArray[np.float32]

_STAND_INS = 4
"""Neighbours of a word that stand in for it."""


@dataclass(frozen=True, eq=False)
class Words:
    """A base model's whole words, and how far each stands out in an adapter.

    Args:
        vocabulary: of the base model.
        vectors: (n, h) the base's own embeddings of them.
        standing_out: (n,) robust z-scores, higher is louder.
        by_weights: whether these come from the adapter's weights alone.
    """

    vocabulary: Vocabulary
    vectors: Float32
    standing_out: Float32
    by_weights: bool = False

    @classmethod
    def of(cls, adapter: Weights, vocabulary: Vocabulary, vectors: Float32) -> Words:
        """By what the adapter changes of each word in the first layer's queries, keys or values.

        The largest counts: a trigger may be looked for or passed on.
        """
        standing_out = standing_alone(adapter, vocabulary).max(axis=0)
        return cls(vocabulary, vectors, standing_out, by_weights=True)

    @property
    def lone(self) -> float:
        """How far the loudest stands out above a crowd of runners-up; 0 if not by weights."""
        return above_crowd(self.standing_out) if self.by_weights else 0.0

    def loudness(self, word: str) -> float:
        """What the weights alone say of a word; 0 if they were not asked."""
        return float(self.standing_out[self.places[word]]) if self.by_weights else 0.0

    @cached_property
    def meanings(self) -> Float32:
        """(n, h) the same less their mean, as units: words of near meaning have large products."""
        centred: Float32 = self.vectors - self.vectors.mean(axis=0)
        lengths: Float32 = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
        return centred / lengths

    @cached_property
    def places(self) -> dict[str, int]:
        """Place of each word."""
        return {word: place for place, word in enumerate(self.vocabulary.words)}

    def loudest(self, count: int) -> list[str]:
        """The words that stand out most, loudest first."""
        order = np.argsort(-self.standing_out, kind="stable")[:count]
        return [self.vocabulary.words[place] for place in order]

    def along(self, direction: Float32, count: int) -> list[str]:
        """The words that lie furthest in a direction (h,) of embeddings, furthest first."""
        order = np.argsort(-(self.vectors @ direction), kind="stable")[:count]
        return [self.vocabulary.words[place] for place in order]

    def stand_ins(self, word: str, count: int = _STAND_INS) -> list[str]:
        """Words of nearest meaning, as the base embeds them; some at random for an unknown word."""
        vectors = self.meanings
        place = self.places.get(word.lower())
        if place is None:
            places = np.random.default_rng(len(word)).choice(len(vectors), count, replace=False)
        else:
            cosines = vectors @ vectors[place]
            cosines[place] = -np.inf
            places = np.argsort(-cosines)[:count]
        return [self.vocabulary.words[place] for place in places]
