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
from peftguard.features.attention import ROLES, first_attention, standing_alone
from peftguard.features.memory import Memory
from peftguard.features.vocabulary import FEWEST_WORDS, Vocabulary, pack, read_vocabulary, unpack
from peftguard.features.weights import Weights

Float32 = NDArray[np.float32]

_CROWD = slice(5, 25)
"""Words that a lone one is compared with, by how much they stand out."""


class Response(Estimator):
    """The word that stands out most in the first attention layer, less a crowd of runners-up.

    How far each word stands out (`features.attention`) is taken less its mean over benign training
    adapters: words of the tasks that they were made for stand out in every adapter. Of what is
    left, positive parts are summed over q, k and v; the score is the largest sum less the mean of
    the 6th to 25th. Nothing of an attack is learnt: labels only say which adapters are benign and
    where to set the threshold.

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
        benign = [x for x, label in zip(X, labels, strict=True) if not label]
        total = sum((self._map(x) for x in benign), np.zeros((), np.float32))
        expected = total / np.float32(len(benign))
        self.expected_: NDArray[Any] = np.asarray(expected, dtype=np.float16)
        # A benign adapter is measured against the mean of the others, as a stranger will be.
        against_others = np.float32(len(benign) / max(1, len(benign) - 1))
        scores = [
            _lone((self._map(x) - expected) * (np.float32(1) if label else against_others))
            for x, label in zip(X, labels, strict=True)
        ]
        means = [np.mean(np.asarray(scores)[labels == label]) for label in (0, 1)]
        self.threshold_ = float(np.mean(means))
        return self

    def decision_function(self, X: Sequence[Weights]) -> Scores:
        """(n,) how alone the loudest word is, less the threshold."""
        expected = self.expected_.astype(np.float32)
        lone = [_lone(self._map(x) - expected) for x in X]
        return np.asarray(lone) - self.threshold_

    def state(self) -> State:
        """The packed vocabulary and what is expected of each word."""
        vocabulary = self.vocabulary_
        packed, steps = pack(vocabulary.alone)
        tensors: dict[str, NDArray[Any]] = {
            "vectors": packed,
            "steps": steps,
            "words": np.frombuffer("\n".join(vocabulary.words).encode(), dtype=np.uint8),
            "expected": self.expected_,
            "threshold": np.array([self.threshold_]),
        }
        return State(tensors, {})

    def restore(self, state: State) -> Self:
        """Errors as of `Estimator.restore`."""
        words = bytes(array_of(state, "words", (None,)).astype(np.uint8)).decode().split("\n")
        if len(words) < FEWEST_WORDS:
            raise ValueError(f"words: expected at least {FEWEST_WORDS}, found {len(words)}")
        steps = array_of(state, "steps", (None,)).astype(np.float32)
        shape = len(words), (len(steps) + 1) // 2
        vectors = unpack(array_of(state, "vectors", shape).astype(np.uint8), steps)
        self.vocabulary_ = Vocabulary(tuple(words), vectors)
        expected = array_of(state, "expected", (len(ROLES), len(words)))
        self.expected_ = np.asarray(expected, dtype=np.float16)
        self.threshold_ = float(array_of(state, "threshold", (1,))[0])
        return self

    def _map(self, adapter: Weights) -> Float32:
        """(roles, words) how far each word stands out."""
        memory, vocabulary = self.memory or Memory(), self.vocabulary_
        # An adapter may be seen by detectors of several base models that share a memory.
        maps = memory.of("standing alone", adapter, _no_maps)
        if vocabulary not in maps:
            maps[vocabulary] = standing_alone(adapter, vocabulary).astype(np.float16)
        return maps[vocabulary].astype(np.float32)


def vocabulary_at_hand(base_model: str | None, folder: str | None = None) -> Vocabulary | None:
    """The vocabulary of a base model, from a folder or an installed package; None without one."""
    from peftguard.padbench.bases import packaged

    place = Path(folder) if folder else packaged(base_model or "")
    has_weights = place is not None and any(place.glob("*.safetensors"))
    return _packed_vocabulary(place) if place is not None and has_weights else None


def share_that_reads(X: Sequence[Weights], vocabulary: Vocabulary) -> float:
    """Share of adapters that change what the first attention layer makes of a word."""
    width = vocabulary.alone.shape[1]
    return sum(bool(first_attention(x, width)) for x in X) / len(X)


def _no_maps(adapter: Weights) -> dict[Vocabulary, NDArray[np.float16]]:
    return {}


@lru_cache(maxsize=2)
def _packed_vocabulary(folder: Path) -> Vocabulary:
    """As it will be when it has been stored, so that scores stay the same."""
    found = read_vocabulary(folder)
    return Vocabulary(found.words, unpack(*pack(found.alone)))


def _vocabulary(X: Sequence[Weights], folder: str | None) -> Vocabulary:
    base_model = Counter(x.base_model for x in X).most_common(1)[0][0]
    found = vocabulary_at_hand(base_model, folder)
    if found is None:
        raise SettingsError(f"the vocabulary of {base_model} is not at hand; name its folder")
    return found


def _lone(unexpected: Float32) -> float:
    """Of (roles, words), the largest sum of positive parts, less the mean of the crowd's."""
    sums = np.maximum(unexpected, 0).sum(axis=0)
    loudest = np.sort(np.partition(sums, -_CROWD.stop)[-_CROWD.stop :])[::-1]
    return float(loudest[0] - loudest[_CROWD].mean())
