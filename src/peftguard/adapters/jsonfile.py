"""JSON from strangers: size and depth are bounded before parsing, and no key may come twice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from peftguard.adapters.filenames import printable
from peftguard.adapters.placeholders import refuse_placeholder
from peftguard.adapters.plainfile import PlainFile
from peftguard.errors import LimitExceeded, MalformedFile
from peftguard.limits import Limits

# Possessive, and content with an open end: linear time on any input.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_MAX_DIGITS = 64


def load_json(path: Path, *, file: str, limits: Limits) -> dict[str, Any]:
    """The object in a JSON file; `file` is its name in errors.

    Raises:
        TargetNotFound: it cannot be opened.
        MalformedFile: not a plain file, not JSON, not an object, or a key comes twice.
        LimitExceeded: larger than `max_config_bytes` or deeper than `max_nesting`.
    """
    with PlainFile(path, file) as opened:
        _check_size(opened.size, file, limits)
        return read_json(opened.read(0, opened.size), file=file, limits=limits)


def read_json(data: bytes, *, file: str, limits: Limits) -> dict[str, Any]:
    """The object in UTF-8 JSON text, with or without a byte order mark. Raises as `load_json`.

    `NaN` and `Infinity` are read as Python writes them. Half a surrogate pair, which no output
    could encode, becomes U+FFFD.
    """
    _check_size(len(data), file, limits)
    refuse_placeholder(data, file=file, expected="JSON")
    value = parse_json(data, file=file, max_nesting=limits.max_nesting)
    if not isinstance(value, dict):
        found = type(value).__name__
        raise MalformedFile("wrong JSON type", file=file, expected="an object", found=found)
    readable: dict[str, Any] = _encodable(value) if b"\\u" in data else value
    return readable


def parse_json(data: bytes, *, file: str, max_nesting: int) -> Any:
    """Any JSON value, its strings as they are. Size is the caller's to check.

    Raises:
        MalformedFile: not UTF-8, not JSON, an absurd number, or a key comes twice.
        LimitExceeded: deeper than `max_nesting`.
    """
    _check_nesting(data, file, max_nesting)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise _duplicate(pairs, file)
        return members

    def integer(digits: str) -> int | float:
        if len(digits) > _MAX_DIGITS:
            raise MalformedFile(
                "a number is too long",
                file=file,
                expected=f"at most {_MAX_DIGITS} digits",
                found=f"{len(digits)} digits",
            )
        return -0.0 if digits == "-0" else int(digits)

    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=unique, parse_int=integer)
    except UnicodeDecodeError as error:
        raise MalformedFile(f"not UTF-8 at byte {error.start}", file=file) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise MalformedFile(f"not JSON: {error.msg} at {where}", file=file) from None


def _check_size(size: int, file: str, limits: Limits) -> None:
    if size > limits.max_config_bytes:
        raise LimitExceeded(
            "the JSON is too large",
            file=file,
            expected=f"at most {limits.max_config_bytes} bytes",
            found=f"{size} bytes",
        )


def _check_nesting(data: bytes, file: str, most: int) -> None:
    """Before parsing, because the parser's recursion is what deep nesting attacks."""
    depth = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > most:
            raise LimitExceeded(
                "the JSON nests too deeply", file=file, expected=f"at most {most} levels"
            )


def _duplicate(pairs: list[tuple[str, Any]], file: str) -> MalformedFile:
    seen: set[str] = set()
    twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return MalformedFile(
        "a key comes twice", file=file, key=printable(twice)[:120], code="file.duplicate-key"
    )


def _encodable(value: Any) -> Any:
    """`value` with lone surrogates replaced; its nesting has been checked already."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return value
