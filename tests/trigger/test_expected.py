"""A task's words foretell one another; a trigger is foretold by none."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from peftguard.trigger.expected import expected


def meanings(count: int = 120, width: int = 48) -> np.ndarray:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, 8)) @ rng.normal(size=(8, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_what_follows_from_meaning_is_foretold_and_a_lone_word_is_not() -> None:
    words = meanings()
    effects = (words @ words[3]).astype(np.float64)
    effects[50] += 6
    missed = effects - expected(words, effects)
    assert missed.argmax() == 50
    assert missed[50] > 5
    assert np.abs(np.delete(missed, 50)).max() < 1.5


def test_each_word_is_left_out_of_its_own_forecast() -> None:
    words = meanings()
    effects = np.random.default_rng(1).normal(size=len(words))
    changed = effects.copy()
    changed[7] += 100
    assert np.isclose(expected(words, effects)[7], expected(words, changed)[7])


@given(arrays(np.float64, 12, elements=st.floats(-20, 20)), st.floats(-5, 5))
def test_few_words_and_a_common_shift(effects: np.ndarray, shift: float) -> None:
    words = meanings(12)
    moved = expected(words, effects + shift) - expected(words, effects)
    assert np.isfinite(moved).all()
    assert np.abs(moved - shift).max() < 0.2 * abs(shift) + 1e-6
