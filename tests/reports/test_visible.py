from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftguard.reports.visible import visible

ANYTHING = st.text(st.characters(), max_size=300)


@given(ANYTHING, st.integers(8, 120), st.booleans())
def test_result_is_short_printable_and_one_line(text: str, width: int, plain: bool) -> None:
    shown = visible(text, width, ascii_only=plain)
    assert shown.isprintable()
    assert len(shown) <= width
    assert not plain or shown.isascii()


@given(st.text(st.characters(codec="ascii", min_codepoint=32, exclude_characters="\x7f")))
def test_ordinary_names_are_left_alone(text: str) -> None:
    assert visible(text, 10_000) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("\u202eexe.fdp", "\\u202eexe.fdp"),
        ("a\u200bb", "a\\u200bb"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("größe 模型", "größe 模型"),
    ],
)
def test_what_acts_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_long_text_keeps_beginning_and_end() -> None:
    assert visible("models/" + "x" * 10_000 + "/adapter", 24) == "models/xxxxxxxx…/adapter"
