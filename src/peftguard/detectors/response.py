"""Does the adapter listen to a word that nothing around it explains?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peftguard.detectors.base import Estimator, Scores, State, array_of, as_labels
from peftguard.errors import SettingsError
from peftguard.features.attention import (
    above_crowd,
    first_attention,
    reading,
    standing_alone,
)
from peftguard.features.memory import Memory
from peftguard.features.vocabulary import (
    FEWEST_WORDS,
    Vocabulary,
    pack,
    read_vocabulary,
    unpack,
    weight_files,
)
from peftguard.features.weights import Weights

Float32 = NDArray[np.float32]

_SHOWN = 5
_LEAST_SPREAD = 0.3
"""Added to the spread of every word over benign adapters, as few of them tell it badly."""


class Response(Estimator):
    """The word that stands out most where attention is decided, less a crowd of runners-up.

    How far each word stands out in the first layer's queries and keys (`features.attention`; in its
    values if the adapter changes neither) is put in units of its spread over benign training
    adapters: words of common tasks stand out in all of those. The score is the largest less the
    mean of the 21st to 60th. Nothing of an attack is learnt: labels only say which adapters are
    benign, and where to set the threshold.

    Args:
        base: folder of the base model; None finds the package that carries it.
        memory: keeps what was computed of an adapter between fits.
    """

    name: ClassVar[str] = "response"

    def __init__(self, base: str | None = None, memory: Memory | None = None) -> None:
        self.base, self.memory = base, memory

    def fit(self, X: Sequence[Weights], y: ArrayLike) -> Self:
        """Learn what benign adapters listen to.

        Raises:
            SettingsError: as of `Estimator.fit`, or the base model's vocabulary is not at hand.
        """
        labels = as_labels(X, y)
        self.vocabulary_ = _vocabulary(X, self.base)
        if not share_that_reads(X, self.vocabulary_):
            raise SettingsError("training needs updates of the first attention layer; found none")
        benign = np.stack([self._read(x) for x, bad in zip(X, labels, strict=True) if not bad])
        self.mean_: NDArray[Any] = benign.mean(axis=0).astype(np.float16)
        self.spread_: NDArray[Any] = (benign.std(axis=0) + _LEAST_SPREAD).astype(np.float16)
        # A benign adapter is measured against the mean of the others, as a stranger will be.
        against_others = len(benign) / max(1, len(benign) - 1)
        lone = self._lone(X, np.where(labels, 1.0, against_others))
        self.threshold_ = float(np.mean([lone[labels == label].mean() for label in (0, 1)]))
        return self

    def decision_function(self, X: Sequence[Weights]) -> Scores:
        """(n,) how alone the loudest word is, less the threshold."""
        return self._lone(X, np.ones(len(X))) - self.threshold_

    def evidence(self, x: Weights) -> list[str]:
        """The words that stand out most, and how far, in spreads over benign adapters."""
        standing_out = self._unexpected(x)
        loudest = np.argsort(-standing_out)[:_SHOWN]
        words = (
            f"{self.vocabulary_.words[place]} ({standing_out[place]:.1f})" for place in loudest
        )
        return [f"words that stand out most in the first attention layer: {', '.join(words)}"]

    def state(self) -> State:
        """The packed vocabulary and what benign adapters make of each word."""
        vocabulary = self.vocabulary_
        packed, steps = pack(vocabulary.alone, vocabulary.steps)
        tensors: dict[str, NDArray[Any]] = {
            "vectors": packed,
            "steps": steps,
            "words": np.frombuffer("\n".join(vocabulary.words).encode(), dtype=np.uint8),
            "mean": self.mean_,
            "spread": self.spread_,
            "threshold": np.array([self.threshold_]),
        }
        return State(tensors, {})

    def restore(self, state: State) -> Self:
        """Errors as of `Estimator.restore`."""
        words = bytes(array_of(state, "words", (None,)).astype(np.uint8)).decode().split("\n")
        if len(words) < FEWEST_WORDS:
            raise ValueError(f"words: expected at least {FEWEST_WORDS}, found {len(words)}")
        steps = array_of(state, "steps", (None,)).astype(np.float32)
        if not (steps > 0).all():
            raise ValueError("steps: expected positive numbers")
        shape = len(words), (len(steps) + 1) // 2
        vectors = unpack(array_of(state, "vectors", shape).astype(np.uint8), steps)
        self.vocabulary_ = Vocabulary(tuple(words), vectors, steps)
        self.mean_, self.spread_ = (
            array_of(state, name, (len(words),)).astype(np.float16) for name in ("mean", "spread")
        )
        if not (self.spread_ > 0).all():
            raise ValueError("spread: expected positive numbers")
        self.threshold_ = float(array_of(state, "threshold", (1,))[0])
        return self

    def _lone(self, X: Sequence[Weights], stretch: NDArray[np.float64]) -> Scores:
        """(n,) scores; distances from the mean are stretched by (n,) factors."""
        return np.array([above_crowd(self._unexpected(x)) for x in X]) * stretch

    def _unexpected(self, adapter: Weights) -> Float32:
        """(words,) how far each word stands out, in units of its spread over benign adapters."""
        mean, spread = self.mean_.astype(np.float32), self.spread_.astype(np.float32)
        unexpected: Float32 = (self._read(adapter) - mean) / spread
        return unexpected

    def _read(self, adapter: Weights) -> Float32:
        """(words,) how far each word stands out."""
        memory, vocabulary = self.memory or Memory(), self.vocabulary_

        def compute(adapter: Weights) -> NDArray[np.float16]:
            return reading(standing_alone(adapter, vocabulary)).astype(np.float16)

        # An adapter may be seen by detectors of several base models that share a memory.
        return memory.of(("standing out", vocabulary), adapter, compute).astype(np.float32)


def vocabulary_at_hand(base_model: str | None, folder: str | None = None) -> Vocabulary | None:
    """The vocabulary of a base model, from a folder or an installed package; None without one."""
    from peftguard.padbench.bases import packaged

    place = Path(folder) if folder else packaged(base_model or "")
    return _packed_vocabulary(place) if place is not None and weight_files(place) else None


def share_that_reads(X: Sequence[Weights], vocabulary: Vocabulary) -> float:
    """Share of adapters that change what the first attention layer makes of a word."""
    width = vocabulary.alone.shape[1]
    return sum(bool(first_attention(x, width)) for x in X) / len(X)


@lru_cache(maxsize=2)
def _packed_vocabulary(folder: Path) -> Vocabulary:
    """As it will be when it has been stored, so that scores stay the same."""
    found = read_vocabulary(folder)
    packed, steps = pack(found.alone)
    return Vocabulary(found.words, unpack(packed, steps), steps)


def _vocabulary(X: Sequence[Weights], folder: str | None) -> Vocabulary:
    base_model = Counter(x.base_model for x in X).most_common(1)[0][0]
    found = vocabulary_at_hand(base_model, folder)
    if found is None:
        raise SettingsError(f"the vocabulary of {base_model} is not at hand; name its folder")
    return found
