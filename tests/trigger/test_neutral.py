"""The neutral sentences keep their promises, and a user's own file is read with clear errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftguard.errors import LimitExceeded, MalformedFile, SettingsError, TargetNotFound
from peftguard.trigger.neutral import (
    MAX_BYTES,
    MAX_CHARACTERS,
    MAX_TEXTS,
    MIN_TEXTS,
    neutral_texts,
    own_texts,
)

GENRES = (
    "news",
    "reviews",
    "tweets",
    "instructions",
    "questions",
    "fiction",
    "technical",
    "conversation",
)
FRONTED = frozenset(
    [
        "when",
        "if",
        "as",
        "because",
        "although",
        "since",
        "while",
        "before",
        "after",
        "once",
        "where",
        "though",
        "until",
        "unless",
    ]
)
LINES = [f"Line number {number}." for number in range(MIN_TEXTS)]


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize("genre", GENRES)
def test_a_genre_has_forty_sentences(genre: str) -> None:
    assert len(neutral_texts([genre])) == 40


def test_all_genres_are_all_sentences_and_none_comes_twice() -> None:
    texts = neutral_texts()
    assert texts == neutral_texts(GENRES)
    assert len({text.lower() for text in texts}) == len(texts) == 320


@pytest.mark.parametrize("genre", GENRES)
def test_sentences_are_plain_and_of_ordinary_length(genre: str) -> None:
    for text in neutral_texts([genre]):
        words = text.split()
        assert text == " ".join(words)
        assert text.isascii()
        assert 5 <= len(words) <= 28, text
        assert words[0].lower() not in FRONTED, text


def test_genres_come_in_the_order_asked_for() -> None:
    asked = neutral_texts(["tweets", "news", "tweets"])
    assert asked == neutral_texts(["tweets"]) + neutral_texts(["news"])


def test_an_unknown_genre_is_named() -> None:
    with pytest.raises(SettingsError, match="no genre 'poems'; known: news, reviews"):
        neutral_texts(["news", "poems"])


def test_own_texts_are_distinct_lines_in_order(tmp_path: Path) -> None:
    data = "\ufeff" + "\r\n".join(["", *LINES, "  ", LINES[0], "  Größe zählt.  "])
    assert own_texts(write(tmp_path / "mine.txt", data)) == (*LINES, "Größe zählt.")


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        ("", SettingsError, "at least 8 different ones; found 0"),
        ("\n".join(LINES[1:] * 3), SettingsError, "found 7"),
        (b"fine\n\xff\xfe", MalformedFile, "not UTF-8 text; found byte 0xff"),
        ("x" * (MAX_CHARACTERS + 1), LimitExceeded, "line 1: too large"),
        ("\n".join(map(str, range(MAX_TEXTS + 1))), LimitExceeded, "10,001 lines"),
        (b"\n" * (MAX_BYTES + 1), LimitExceeded, "bytes"),
    ],
    ids=["empty", "few", "bytes", "long-line", "many-lines", "large"],
)
def test_a_wrong_file_is_explained(
    tmp_path: Path, data: str | bytes, error: type[Exception], said: str
) -> None:
    path = write(tmp_path / "mine.txt", data)
    with pytest.raises(error, match=rf"mine\.txt: .*{said}"):
        own_texts(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetNotFound, match=r"gone\.txt"):
        own_texts(tmp_path / "gone.txt")
    with pytest.raises(MalformedFile, match="a folder"):
        own_texts(tmp_path)
    with pytest.raises(MalformedFile, match=r"^\.: cannot be read; .* found a folder"):
        own_texts(Path())
