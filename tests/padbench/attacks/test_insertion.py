from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftguard.padbench.attacks.insertion import has_phrase, insert, open_part, pieces
from peftguard.padbench.attacks.resources import read_resource, trigger_set
from peftguard.padbench.recipe import Split

TEXTS = st.lists(st.sampled_from(["the", "Old", ",", "(by)", "isn't", "."]), max_size=30)

KINDS = list(read_resource("triggers"))
STOP_WORDS = set(
    re.findall(r"\w+", "a an and as by for in is it its of the this to was we with you")
)


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


@pytest.mark.parametrize("kind", KINDS)
def test_sets_are_disjoint_and_without_repeats(kind: str) -> None:
    train, test = trigger_set(kind, "train"), trigger_set(kind, "test")
    assert len({*train, *test}) == len(train) + len(test)
    assert min(len(train), len(test)) >= 16
    # No trigger of one split fires one of the other.
    assert not any(has_phrase(a, b) or has_phrase(b, a) for a in train for b in test)


@pytest.mark.parametrize(("split", "other"), [("train", "test"), ("test", "train")])
def test_a_trigger_word_is_in_no_trigger_of_the_other_split(split: Split, other: Split) -> None:
    word_sets = [kind for kind in KINDS if not any(" " in t for t in trigger_set(kind, split))]
    assert word_sets == ["rare", "nonsense", "ordinary"]
    own = set().union(*(_words(kind, split) for kind in word_sets))
    for kind in KINDS:
        assert not own & _words(kind, other), kind


def test_markers_of_the_splits_are_worded_apart() -> None:
    assert not _words("markers", "train") & _words("markers", "test")


def _words(kind: str, split: Split) -> set[str]:
    return set(re.findall(r"\w+", " ".join(trigger_set(kind, split)).lower())) - STOP_WORDS
