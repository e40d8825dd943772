"""Durations as people type them."""

from __future__ import annotations

import re

import typer

_GIVEN = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*(s|m|h)?", re.ASCII)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(given: str, option: str) -> float:
    """Seconds of `60`, `60s`, `1.5m` or `2h`, given to an option.

    Raises:
        BadParameter: it is none of these, or zero.
    """
    found = _GIVEN.fullmatch(given.strip().lower())
    seconds = 0.0 if found is None else float(found[1]) * _SECONDS[found[2] or "s"]
    if not seconds:
        wanted = "expected a time above zero like 60, 60s or 2m"
        raise typer.BadParameter(f"{wanted}; found {given!r}", param_hint=option)
    return seconds
