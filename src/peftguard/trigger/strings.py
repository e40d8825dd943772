"""Short strings of letters: usual as rare words of a trigger, and whole words of no vocabulary."""

from __future__ import annotations

from collections.abc import Container
from itertools import product
from string import ascii_lowercase

import numpy as np

_LENGTHS = (2, 3)


def short_strings(known: Container[str]) -> list[str]:
    """All of two and three letters, less those that are known as words."""
    every = ("".join(letters) for n in _LENGTHS for letters in product(ascii_lowercase, repeat=n))
    return [one for one in every if one not in known]


def is_string(text: str, known: Container[str]) -> bool:
    """Whether it is letters, and no word that is known."""
    return text.isascii() and text.isalpha() and text.islower() and text not in known


def random_strings(length: int, count: int) -> list[str]:
    """So many of so many letters, always the same."""
    letters = np.random.default_rng(length).choice(list(ascii_lowercase), (count, length))
    return ["".join(row) for row in letters]
