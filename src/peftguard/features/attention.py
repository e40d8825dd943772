"""What an adapter makes the first attention layer listen to, word by word.

An update changes what the layer computes of a word x by dW x. Words of one meaning lie close
together, so a task changes what is computed of whole families; a trigger is changed alone. What is
measured of a word is therefore its change less the mean change of its neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.update import place_of
from peftguard.features.order import by_layer
from peftguard.features.roles import role_of
from peftguard.features.vocabulary import Vocabulary
from peftguard.features.weights import Factors, Weights

Float32 = NDArray[np.float32]

ROLES = ("q", "k", "v")
_FUSED = "qkv"
"""One module that computes all three: it counts as each."""
_READING = ROLES.index("q"), ROLES.index("k")
CROWD = slice(20, 60)
"""Words that a lone one is compared with, by how much they stand out."""
LEAST = 1e-12
NORMAL_QUARTILES = 1.349
"""Between the quartiles of a normal distribution, in standard deviations."""


def standing_alone(adapter: Weights, vocabulary: Vocabulary) -> Float32:
    """(3, n) how far each word stands out in the first layer's q, k and v; zero where unchanged.

    Logarithms of the length of dW (x - mean of its neighbours), as robust z-scores over the
    vocabulary: neither the size of the update nor, to first order, its rank matters.
    """
    found = np.zeros((len(ROLES), len(vocabulary.words)), np.float32)
    for role, factors in first_attention(adapter, vocabulary.alone.shape[1]).items():
        found[ROLES.index(role)] = in_spreads(_lengths(factors, vocabulary.alone))
    return found


def in_spreads(lengths: Float32) -> Float32:
    """(n,) logarithms of lengths as robust z-scores; zeros where all are alike."""
    logs = np.log(lengths + LEAST)
    low, middle, high = np.percentile(logs, (25, 50, 75))
    if high <= low:
        return np.zeros(len(logs), np.float32)
    standing_out: Float32 = ((logs - middle) / ((high - low) / NORMAL_QUARTILES)).astype(np.float32)
    return standing_out


def reading(alone: Float32) -> Float32:
    """(words,) of (roles, words): the mean of queries and keys, or values where there are none."""
    changed = [role for role in _READING if alone[role].any()] or [ROLES.index("v")]
    mean: Float32 = alone[changed].mean(axis=0)
    return mean


def above_crowd(standing_out: Float32) -> float:
    """Of (words,), the largest less the mean of the crowd's."""
    loudest = np.sort(np.partition(standing_out, -CROWD.stop)[-CROWD.stop :])[::-1]
    return float(loudest[0] - loudest[CROWD].mean())


def first_attention(adapter: Weights, width: int) -> dict[str, Factors]:
    """Updates of the first layer that read an input of this width, by role.

    Of an encoder and a decoder it is the encoder's: that is where a text comes in.
    """
    layers: dict[tuple[str, int], dict[str, Factors]] = {}
    for module, factors in adapter.modules.items():
        layer, number, path = place_of(module)
        role = role_of(path)
        roles = ROLES if role == _FUSED else (role,) if role in ROLES else ()
        if layer is None or number is None or factors.shape[1] != width or not len(factors.A):
            continue
        if roles:
            layers.setdefault((layer, number), {}).update(dict.fromkeys(roles, factors))
    first = min(layers, key=lambda place: _where_text_comes_in(place[0]), default=None)
    # An adapter that leaves the first layer alone says nothing about what is read there.
    return layers[first] if first is not None and first[1] == 0 else {}


def _where_text_comes_in(layer: str) -> tuple[bool, object]:
    return "decoder" in layer, by_layer(layer)


def _lengths(factors: Factors, vectors: Float32) -> Float32:
    """(n,) |dW x| of vectors (n, in): |R A x|, where B = Q R."""
    root = np.linalg.qr(factors.B.astype(np.float64), mode="r")
    read = (root @ factors.A.astype(np.float64)).astype(np.float32)
    lengths: Float32 = np.linalg.norm(vectors @ read.T, axis=1)
    return lengths
