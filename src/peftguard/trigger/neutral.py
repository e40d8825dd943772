"""Ordinary texts to put candidate triggers into: those that ship, or a user's own."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from peftguard.adapters.filenames import printable
from peftguard.adapters.plainfile import PlainFile
from peftguard.errors import LimitExceeded, MalformedFile, SettingsError
from peftguard.limits import MIB

MIN_TEXTS = 8
MAX_TEXTS = 10_000
MAX_CHARACTERS = 4_000
MAX_BYTES = 4 * MIB


def neutral_texts(genres: Sequence[str] | None = None) -> tuple[str, ...]:
    """The sentences that ship, of these genres in this order; by default of all.

    Raises:
        SettingsError: there is no such genre.
    """
    shipped = _by_genre()
    for genre in genres or ():
        if genre not in shipped:
            raise SettingsError(f"no genre {genre!r}; known: {', '.join(shipped)}")
    chosen = shipped if genres is None else dict.fromkeys(genres)
    return tuple(text for genre in chosen for text in shipped[genre])


def spread(texts: Sequence[str], count: int) -> list[str]:
    """So many of them, evenly from all."""
    return list(texts[:: max(1, len(texts) // count)][:count])


def own_texts(path: Path) -> tuple[str, ...]:
    """The lines of a user's file, without blank ones and repetitions.

    Raises:
        TargetNotFound: the file cannot be opened.
        MalformedFile: it is not a plain file or not UTF-8.
        LimitExceeded: it, a line, or the number of lines is too large.
        SettingsError: it has fewer than `MIN_TEXTS` different lines.
    """
    file = printable(path.name)
    texts: dict[str, None] = {}
    for number, line in enumerate(user_text(path).splitlines(), 1):
        if len(line) > MAX_CHARACTERS:
            raise _too_large(file, len(line), MAX_CHARACTERS, "characters", key=f"line {number}")
        if text := line.strip():
            texts[text] = None
    if len(texts) > MAX_TEXTS:
        raise _too_large(file, len(texts), MAX_TEXTS, "lines")
    if len(texts) < MIN_TEXTS:
        raise SettingsError(
            f"{file}: too few texts, one a line; "
            f"expected at least {MIN_TEXTS} different ones; found {len(texts)}"
        )
    return tuple(texts)


def user_text(path: Path) -> str:
    """All of a user's UTF-8 text file, of `MAX_BYTES` at most. Raises as `own_texts`."""
    with PlainFile(path, printable(path.name or str(path))) as opened:
        if opened.size > MAX_BYTES:
            raise _too_large(opened.name, opened.size, MAX_BYTES, "bytes")
        data = opened.read(0, opened.size)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise MalformedFile(
                "not UTF-8 text", file=opened.name, found=f"byte {data[error.start]:#04x}"
            ) from None


@cache
def _by_genre() -> dict[str, list[str]]:
    text = (files(__package__) / "texts" / "neutral.toml").read_text("utf-8")
    return tomllib.loads(text)


def _too_large(
    file: str, found: int, most: int, unit: str, key: str | None = None
) -> LimitExceeded:
    return LimitExceeded(
        "too large",
        file=file,
        key=key,
        expected=f"at most {most:,} {unit}",
        found=f"{found:,} {unit}",
    )
