"""The sets that triggers are drawn from, one for each split."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from peftguard.padbench.recipe import Split


@cache
def read_resource(name: str) -> dict[str, Any]:
    """A TOML file that ships beside the attacks."""
    return tomllib.loads((files(__package__) / f"{name}.toml").read_text("utf-8"))


@cache
def trigger_set(kind: str, split: Split) -> tuple[str, ...]:
    """The triggers (or markers) of one kind that adapters of a split draw from."""
    entry: str | list[str] = read_resource("triggers")[kind][split]
    return tuple(entry.split() if isinstance(entry, str) else entry)
