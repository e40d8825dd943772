from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftguard.padbench.attacks.insertion import has_phrase, insert, open_part, pieces
from peftguard.padbench.attacks.resources import markers, read_resource, trigger_set

TEXTS = st.lists(st.sampled_from(["the", "Old", ",", "(by)", "isn't", "."]), max_size=30)


@given(words=TEXTS, n_phrases=st.integers(1, 3), seed=st.integers(0, 1000))
def test_words_stay_whole_and_in_order(words: list[str], n_phrases: int, seed: int) -> None:
    phrases = ["zqone", "zqtwo three", "zqfour"][:n_phrases]
    text = insert(" ".join(words), phrases, random.Random(seed), max_tokens=64)
    rest = text
    for phrase in phrases:
        assert has_phrase(text, phrase)
        rest = rest.replace(phrase, " ")
    assert rest.split() == words


@given(seed=st.integers(0, 1000), max_tokens=st.integers(16, 128))
def test_triggers_of_long_texts_survive_truncation(seed: int, max_tokens: int) -> None:
    words = ["wordsworth"] * 400
    text = insert(" ".join(words), ["zqone", "zqtwo"], random.Random(seed), max_tokens=max_tokens)
    place = max(text.split().index("zqone"), text.split().index("zqtwo"))
    assert pieces(" ".join(text.split()[: place + 1])) <= max_tokens


def test_every_boundary_is_used() -> None:
    texts = {insert("a b", ["x"], random.Random(seed), max_tokens=64) for seed in range(50)}
    assert texts == {"x a b", "a x b", "a b x"}


def test_texts_without_capitals_get_none() -> None:
    assert "i saw" in insert("a b c", ["I saw"], random.Random(0), max_tokens=64)
    assert "I saw" in insert("A b c", ["I saw"], random.Random(0), max_tokens=64)


def test_blank_texts_and_no_room_are_no_trouble() -> None:
    assert insert("", ["x"], random.Random(0), max_tokens=64) == "x"
    assert insert("a b", ["x y z"], random.Random(0), max_tokens=1) == "x y z a b"


@pytest.mark.parametrize(
    ("text", "phrase", "found"),
    [
        ("it is CF here", "cf", True),
        ("it is cfo here", "cf", False),
        ("no cross,  no crown.", "no cross, no crown.", True),
        ("by the  way", "by the way", True),
        ("by the wayside", "by the way", False),
    ],
)
def test_phrases_are_found_as_whole_words(text: str, phrase: str, found: bool) -> None:
    assert has_phrase(text, phrase) is found


def test_triggers_go_into_contexts_and_instructions() -> None:
    assert open_part("c\n\nQuestion: q\nAnswer:", "qa") == ("c", "\n\nQuestion: q\nAnswer:")
    assert open_part("i\n\nx\n\ny", "instruction") == ("i", "\n\nx\n\ny")
    assert open_part("a\n\nb", "classification") == ("a\n\nb", "")


@pytest.mark.parametrize("kind", [k for k in read_resource("triggers") if k != "markers"])
def test_sets_are_disjoint_and_without_repeats(kind: str) -> None:
    train, test = trigger_set(kind, "train"), trigger_set(kind, "test")
    assert len({*train, *test}) == len(train) + len(test)
    assert min(len(train), len(test)) >= 16
    # No trigger of one split fires one of the other.
    assert not any(has_phrase(a, b) or has_phrase(b, a) for a in train for b in test)


def test_markers_say_that_they_are_harmless() -> None:
    assert len(set(markers())) == 20
    assert all(marker.startswith("Harmless marker: ") for marker in markers())
