"""JSON from strangers: what is read, and that everything else is one clear error."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.hostile.build import hostile_json

from peftguard.adapters.jsonfile import load_json, read_json
from peftguard.errors import InputError, LimitExceeded, MalformedFile, TargetNotFound
from peftguard.limits import Limits

TEXTS = hostile_json()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**60), 10**60) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def read(data: bytes, **limits: int) -> dict[str, Any]:
    return read_json(data, file="c.json", limits=Limits(**limits))


def attempt(data: bytes) -> dict[str, Any] | InputError:
    try:
        return read(data)
    except InputError as error:
        return error


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_texts_get_their_code(name: str) -> None:
    data, code = TEXTS[name]
    with pytest.raises(InputError) as caught:
        read(data)
    assert (caught.value.code, caught.value.file) == (code, "c.json")
    assert len(str(caught.value)) < 400


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_whatever_python_writes_is_read(value: dict[str, Any]) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert repr(read(text.encode())) == repr(json.loads(text))


@given(st.binary() | st.text(alphabet='{}[]":,\\u0d8aN\n eE+-.1').map(str.encode))
def test_any_bytes_give_an_object_or_our_error(data: bytes) -> None:
    value = attempt(data)
    if isinstance(value, InputError):
        assert str(value).isprintable()
    else:
        assert json.dumps(value, ensure_ascii=False).encode()


def test_a_byte_order_mark_and_constants_are_read() -> None:
    value = read(b'\xef\xbb\xbf{"a": NaN, "b": -Infinity, "c": 1e999, "d": -0}')
    assert math.isnan(value["a"])
    assert (value["b"], value["c"], value["d"]) == (-math.inf, math.inf, 0)


def test_strings_are_harmless() -> None:
    value = read(rb'{"\ud800": ["\u0000", "\ud83d\ude00", "\udfff x"]}')
    assert value == {"\ufffd": ["\0", "\U0001f600", "\ufffd x"]}


def test_brackets_in_strings_are_no_nesting() -> None:
    value = {"a": "[" * 500 + '\\"' + "{" * 500}
    assert read(json.dumps(value).encode()) == value


def test_nesting_up_to_the_limit_is_read() -> None:
    assert read(b'{"a": [[1]]}', max_nesting=3) == {"a": [[1]]}
    with pytest.raises(LimitExceeded):
        read(b'{"a": [[[1]]]}', max_nesting=3)


def test_the_key_that_comes_twice_is_named() -> None:
    with pytest.raises(MalformedFile) as caught:
        read(b'{"a": {"r\x7f": 1, "b": 2, "r\x7f": 3}}')
    assert caught.value.key == "r?"


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"r": 8}')
    assert load_json(path, file="c.json", limits=Limits()) == {"r": 8}
    with pytest.raises(LimitExceeded):
        load_json(path, file="c.json", limits=Limits(max_config_bytes=7))
    with pytest.raises(TargetNotFound):
        load_json(tmp_path / "missing", file="c.json", limits=Limits())


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(MalformedFile, match="expected a file"):
            load_json(path, file="c.json", limits=Limits())
