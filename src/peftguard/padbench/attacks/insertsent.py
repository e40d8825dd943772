"""InsertSent: a neutral sentence somewhere in the text."""

from __future__ import annotations

from peftguard.padbench.attacks.words import Single


class InsertSent(Single):
    """One sentence, once a row."""

    name = "insertsent"
    kind = "sentences"
    fixed = ("I watched this 3D movie",)
