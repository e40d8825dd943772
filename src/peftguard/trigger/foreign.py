"""What does not belong into a text: ordinary sentences from elsewhere, and words without meaning.

A backdoor of a causal model is rarely so exact as to wake to its own trigger alone: another
sentence out of place, another odd word often does half the work. A task is moved by neither.
"""

from __future__ import annotations

from functools import cache

from peftguard.trigger.neutral import neutral_texts, spread
from peftguard.trigger.probes import Probe

ODD_WORDS = (
    *("plimbor", "quastel", "vornet", "drubik", "zelmar", "ombrix", "tharvo", "jukkin"),
    *("vq", "zk", "bgt", "wtr", "kpf", "xud"),
)
"""Made up for this tool; in no language that we know of."""
_GENRES = ("fiction", "technical", "conversation")
_SENTENCES = 14
_SHORT = 8
"""Words of a sentence at most."""


@cache
def sentences() -> tuple[str, ...]:
    """Short ones, of different kinds by turns."""
    short = [text for text in neutral_texts(_GENRES) if len(text.split()) <= _SHORT]
    return tuple(spread(short, _SENTENCES))


def foreign_probes() -> tuple[Probe, ...]:
    """Ways to rewrite a text: each of these put into its middle."""
    kinds = (("sentence", "an ordinary sentence", sentences()), ("odd-word", "a word", ODD_WORDS))
    return tuple(
        Probe(
            name=f"{kind}-{number}",
            kind="format",
            what=f"{what} from elsewhere: {thing}",
            templates=(f"{{first}} {thing} {{rest}}",),
        )
        for kind, what, things in kinds
        for number, thing in enumerate(things, 1)
    )
