"""Strings of letters that are no words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peftguard.trigger.strings import is_string, random_strings, short_strings


def test_all_of_two_and_three_letters_are_there_but_known_words() -> None:
    found = short_strings({"cat", "of", "bread"})
    assert len(found) == len(set(found)) == 26**2 + 26**3 - 2
    assert {len(one) for one in found} == {2, 3}
    assert {"zq", "bwf"} < set(found)
    assert not {"cat", "of"} & set(found)


@given(st.text(max_size=4))
def test_a_string_is_letters_and_no_known_word(text: str) -> None:
    assert is_string(text, {text}) is False
    plain = bool(text) and set(text) <= set("abcdefghijklmnopqrstuvwxyz")
    assert is_string(text, ()) is plain


@given(st.integers(1, 6), st.integers(0, 40))
def test_random_strings_are_as_long_as_asked_and_always_the_same(length: int, count: int) -> None:
    found = random_strings(length, count)
    assert found == random_strings(length, count)
    assert [len(one) for one in found] == [length] * count
    assert all(is_string(one, ()) for one in found)
