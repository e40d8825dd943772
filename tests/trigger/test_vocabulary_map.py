"""The map of a vocabulary: which words are on it, where, and which are named."""

from __future__ import annotations

import numpy as np
from tests.toy_base import families

from peftguard.features.vocabulary import Vocabulary
from peftguard.trigger.vocabulary_map import DRAWN, LABELLED, LOUD, vocabulary_map
from peftguard.trigger.words import Words


def words_of(count: int, loud: list[int]) -> Words:
    rng = np.random.default_rng(0)
    vectors = families(rng, count, 12).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    loudness = rng.normal(size=count).astype(np.float32)
    loudness[loud] = 20 + np.arange(len(loud))[::-1]
    names = tuple(f"w{n}" for n in range(count))
    return Words(Vocabulary(names, vectors), vectors, loudness)


def test_the_loudest_are_on_it_among_words_at_random() -> None:
    words = words_of(4000, [7, 1234])
    points = vocabulary_map(words)
    names = [point.word for point in points]
    assert set(words.loudest(LOUD)) <= set(names)
    assert DRAWN <= len(names) <= DRAWN + LOUD
    assert len(set(names)) == len(names)
    by_name = {point.word: point for point in points}
    assert by_name["w7"].loudness == 21
    assert by_name["w7"].labelled
    assert sum(point.labelled for point in points) <= LABELLED


def test_a_loud_family_is_not_named() -> None:
    words = words_of(4000, [7])
    loud = [7, *(words.places[each] for each in words.stand_ins("w7"))]
    words.standing_out[loud] = 30
    named = {point.word for point in vocabulary_map(words) if point.labelled}
    assert "w7" not in named


def test_coordinates_fill_the_square_and_never_change() -> None:
    words = words_of(400, [7])
    points = vocabulary_map(words)
    assert len(points) == 400
    flat = np.array([(point.x, point.y) for point in points])
    np.testing.assert_array_equal(np.abs(flat).max(axis=0), 1)
    assert points == vocabulary_map(words)
    turned = Words(words.vocabulary, -words.vectors, words.standing_out)
    again = np.array([(point.x, point.y) for point in vocabulary_map(turned)])
    np.testing.assert_allclose(np.abs(again), np.abs(flat), atol=2e-3)


def test_words_of_one_meaning_lie_together() -> None:
    points = vocabulary_map(words_of(600, [7]))
    flat = np.array([(point.x, point.y) for point in points])
    family = np.array([int(point.word[1:]) % 6 for point in points])
    own = np.mean([flat[family == k].std(axis=0).mean() for k in range(6)])
    assert own < flat.std(axis=0).mean() / 2
