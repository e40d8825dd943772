"""One order for modules and layers, whatever the order of the file."""

from __future__ import annotations


def by_layer(path: str) -> list[tuple[int, str]]:
    """Sorts dotted paths part by part, numbers as numbers: layer 10 comes after layer 9."""
    parts = path.split(".")
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
