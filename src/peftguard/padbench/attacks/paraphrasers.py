"""Paraphrasers of other packages, by name, through the entry point group `peftguard.paraphrasers`.

One is a function of (text, style, chance) that returns the text in that style, or None for a text
that it cannot rewrite. Styles are those of `styles.toml`; the same chance must give the same text.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from peftguard.errors import SettingsError

GROUP = "peftguard.paraphrasers"

Stylist = Callable[[str, str, random.Random], str]
"""Text, style, chance: the text in that style."""


def check_paraphraser(name: str) -> None:
    """Look a name up without importing anything.

    Raises:
        SettingsError: no installed package registers that name.
    """
    _entry(name)


def paraphrased(name: str, text: str, style: str, rng: random.Random) -> str | None:
    """A text in that style, by the paraphraser of that name; None if it cannot be rewritten.

    Raises:
        SettingsError: there is no such paraphraser, or it gives something else than text.
    """
    given = _loaded(name)(text, style, rng)
    if given is not None and not (isinstance(given, str) and given.strip()):
        raise SettingsError(f"paraphraser {name}: expected text or None, found {given!r:.80}")
    return given


@cache
def _loaded(name: str) -> Callable[[str, str, random.Random], str | None]:
    function = _entry(name).load()
    if not callable(function):
        raise SettingsError(f"paraphraser {name}: expected a function, found {function!r:.80}")
    return function  # type: ignore[no-any-return]


def _entry(name: str) -> EntryPoint:
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(sorted(known)) or "none; packages register theirs under " + GROUP
    hint = f"did you mean {close[0]!r}?" if close else f"known: {listed}"
    raise SettingsError(f"no paraphraser {name!r}; {hint}")
