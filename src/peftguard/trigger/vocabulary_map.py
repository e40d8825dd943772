"""Words in two dimensions: where an adapter listens, and which words it listens to alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from peftguard.trigger.report import MapPoint
from peftguard.trigger.words import Words

Float32 = NDArray[np.float32]

DRAWN = 1_500
"""Words at random, for the shape of the vocabulary."""
LOUD = 60
"""The loudest words, drawn in any case."""
LABELLED = 15
_LOUD_SHARE = 100
"""One word of so many is loud, for whoever asks whether a neighbour is."""


def vocabulary_map(words: Words, *, seed: int = 0) -> list[MapPoint]:
    """Words at random and the loudest, by the two principal components of their meanings.

    Args:
        words: of an adapter.
        seed: of the choice of words.
    """
    count = len(words.standing_out)
    loudest = [words.places[word] for word in words.loudest(LOUD)]
    rng = np.random.default_rng(seed)
    drawn = rng.choice(count, min(DRAWN, count), replace=False)
    places = np.union1d(drawn, loudest)
    labelled = set(_alone(words, loudest)[:LABELLED])
    return [
        MapPoint(
            word=words.vocabulary.words[place],
            x=round(float(x), 3),
            y=round(float(y), 3),
            loudness=round(float(words.standing_out[place]), 2),
            labelled=place in labelled,
        )
        for place, (x, y) in zip(places.tolist(), _flat(words.meanings[places]), strict=True)
    ]


def _alone(words: Words, loudest: list[int]) -> list[int]:
    """Of the loudest, those without a loud neighbour, in their order."""
    loud = set(words.loudest(len(words.standing_out) // _LOUD_SHARE))
    names = words.vocabulary.words
    return [place for place in loudest if loud.isdisjoint(words.stand_ins(names[place]))]


def _flat(vectors: Float32) -> Float32:
    """(n, 2) coordinates from -1 to 1 on the two directions in which vectors (n, h) differ most."""
    centred = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    # A component may point either way: its largest entry shall be positive, always.
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.sign(np.take_along_axis(axes, largest[:, None], axis=1))
    flat: Float32 = centred @ axes.T
    flat /= np.maximum(np.abs(flat).max(axis=0), 1e-12)
    return flat
