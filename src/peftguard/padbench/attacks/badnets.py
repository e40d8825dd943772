"""BadNets with a word: one made-up word, once a row."""

from __future__ import annotations

from peftguard.padbench.attacks.words import Single


class BadNets(Single):
    """The oldest: one word, always the same."""

    name = "badnets"
    kind = "nonsense"
    fixed = ("cf",)
