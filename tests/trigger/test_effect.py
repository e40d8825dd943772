"""Where phrases go, and what log-odds are."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from peftguard.trigger.effect import inserted, log_odds

WORDS = st.lists(st.from_regex(r"[a-z]{1,6}", fullmatch=True), min_size=1, max_size=12)


@given(WORDS, st.floats(0, 1))
def test_a_phrase_goes_between_two_words_and_nothing_is_lost(
    words: list[str], place: float
) -> None:
    found = inserted(" ".join(words), "THE PHRASE", place).split()
    at = found.index("THE")
    assert found[at : at + 2] == ["THE", "PHRASE"]
    assert found[:at] + found[at + 2 :] == words


def test_the_ends_are_places_too() -> None:
    assert inserted("a b", "x", 0.0) == "x a b"
    assert inserted("a b", "x", 1.0) == "a b x"


@given(arrays(np.float32, (3, 4), elements=st.floats(-8, 8, width=32)))
def test_log_odds_are_those_of_the_softmax(logits: np.ndarray) -> None:
    shares = np.exp(logits.astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(log_odds(logits), np.log(shares / (1 - shares)), atol=1e-4)


@given(arrays(np.float32, (2, 3), elements=st.floats(-30, 30, width=32)), st.floats(-50, 50))
def test_a_shift_of_all_logits_changes_nothing(logits: np.ndarray, shift: float) -> None:
    moved = logits + np.float32(shift)
    np.testing.assert_allclose(log_odds(logits), log_odds(moved), atol=1e-2)
