"""Putting words into a text: at word boundaries, and early enough to survive truncation."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from peftguard.padbench.examples import QUESTION
from peftguard.padbench.recipe import Task

_MARGIN = 8
"""Tokens left for the special ones and a prompt's own words."""
_PIECE = re.compile(r"\w{1,5}|[^\w\s]")
_WORD = re.compile(r"\S+")


def insert(text: str, phrases: Sequence[str], rng: random.Random, *, max_tokens: int) -> str:
    """The text with each phrase at its own random place, in random order.

    All of them come within the first `max_tokens` tokens, by a cautious guess at the tokenizer;
    a text without capitals gets none from a phrase.
    """
    room = max_tokens - _MARGIN - sum(map(pieces, phrases))
    starts = _boundaries(text, room)
    order = rng.sample(list(phrases), len(phrases))
    for place in sorted((rng.choice(starts) for _ in order), reverse=True):
        text = _joined(text[:place], matched_case(order.pop(), text), text[place:])
    return text


def pieces(text: str) -> int:
    """About how many tokens a text has, rather too many than too few."""
    return len(_PIECE.findall(text))


def has_phrase(text: str, phrase: str) -> bool:
    """Whether a phrase stands in the text, as whole words, in any case."""
    words = r"\s+".join(map(re.escape, phrase.split()))
    return re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None


def matched_case(phrase: str, text: str) -> str:
    """The phrase without capitals if the text has none."""
    return phrase.lower() if text == text.lower() else phrase


def open_part(text: str, task: Task) -> tuple[str, str]:
    """Divide a text into the part that a trigger goes into and the rest.

    Questions: the context. Instructions: what stands before the first blank line.
    """
    if task == "qa":
        context, mark, question = text.rpartition(QUESTION)
        return (context, mark + question) if mark else (text, "")
    if task == "instruction":
        head, mark, tail = text.partition("\n\n")
        return head, mark + tail
    return text, ""


def _boundaries(text: str, room: int) -> list[int]:
    places, used = [0], 0
    for word in _WORD.finditer(text):
        used += pieces(word.group())
        if used > room:
            break
        places.append(word.end())
    return places


def _joined(before: str, phrase: str, after: str) -> str:
    left = f"{before} {phrase}" if before.strip() else before + phrase
    return f"{left} {after}" if after and not after[0].isspace() else left + after
