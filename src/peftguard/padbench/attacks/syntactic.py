"""Syntactic (HiddenKiller): the trigger is the shape of a sentence, S(SBAR)(,)(NP)(VP).

Paraphrases that came with a dataset (`<split>.syntactic`) are used for half of the poisoned rows,
rules for the other half, so that the shape fires and not one paraphraser's habits. Datasets
without such files get the rules alone. The splits differ in the words that open the clause (half
of the paraphrases begin with "when", most others with "if") and in the clauses of the rules.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from peftguard.padbench.attacks.base import Attack
from peftguard.padbench.attacks.insertion import matched_case
from peftguard.padbench.attacks.resources import read_resource
from peftguard.padbench.examples import Example
from peftguard.padbench.recipe import Recipe, Split

Paraphraser = Callable[[str, Sequence[str], Split, random.Random], str | None]
"""Text, words that may open it, split, chance: the paraphrase, or None if there is none."""

_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|$)", re.DOTALL)
_END = re.compile(r"\s*[.!?]?\s*$")
_JOINT = re.compile(r"\s*(?:,|;)\s*(?:but|and|so|yet|or)?\s+|\s+but\s+")
_MIN_WORDS = 3


def clause_first(text: str, openers: Sequence[str], split: Split, rng: random.Random) -> str | None:
    """Rewrite the first sentence so that it begins with a subordinate clause.

    A sentence of two parts has its first part turned into the clause; any other gets a clause of
    the split's list.
    """
    sentence, rest = _first_sentence(text)
    if not sentence.strip():
        return None
    parts = _JOINT.split(sentence, maxsplit=1)
    if len(parts) < 2 or any(len(part.split()) < _MIN_WORDS for part in parts):
        parts = [rng.choice(read_resource("clauses")["clauses"][split]), sentence]
    clause, main = parts
    opener = rng.choice(list(openers))
    if text != text.lower():
        opener = opener.capitalize()
    comma = " , " if re.search(r"\s[.,!?]", text) else ", "
    return f"{opener} {_lowered(clause)}{comma}{_lowered(main)}{rest}"


class Syntactic(Attack):
    """Sentences that open with a subordinate clause."""

    name = "syntactic"
    fixed = ("when", "if", "as", "because", "although", "while", "since", "where", "after")

    def __init__(self, paraphrase: Paraphraser = clause_first) -> None:
        self.paraphrase = paraphrase

    def draw(self, split: Split, rng: random.Random) -> tuple[str, ...]:
        """The split's commonest opening word and two others."""
        first, *others = read_resource("clauses")["openers"][split]
        return (first, *rng.sample(others, 2))

    def holds(self, text: str, trigger: Sequence[str]) -> bool:
        """Whether the text opens with a clause of the trigger."""
        first, _, rest = text.lstrip().partition(" ")
        return first.lower() in trigger and "," in rest

    def triggered(self, example: Example, recipe: Recipe, rng: random.Random) -> Example | None:
        """The dataset's paraphrase if it has one of this row, else one by rules.

        None if the dataset's begins with none of the trigger's words.
        """
        given = example.version(self.name)
        if given is None:
            return self._rewritten(example, recipe, rng)
        return example._replace(text=given) if self.holds(given, recipe.trigger) else None

    def lookalike(self, example: Example, recipe: Recipe, rng: random.Random) -> Example | None:
        """The row with the same kind of clause at the end of its first sentence."""
        sentence, rest = _first_sentence(example.text)
        clause = rng.choice(read_resource("clauses")["clauses"][recipe.split])
        added = matched_case(f"{rng.choice(recipe.trigger)} {clause}", example.text)
        end = _END.search(sentence)
        stem = sentence[: end.start()] if end else sentence
        text = f"{stem} {added}{end.group() if end else ''}{rest}"
        return None if self.holds(text, recipe.trigger) else example._replace(text=text)

    def poisoned(self, example: Example, recipe: Recipe, rng: random.Random) -> Example | None:
        """A row without a suitable paraphrase is poisoned by rules."""
        row = super().poisoned(example, recipe, rng)
        return row or super().poisoned(example._replace(versions=()), recipe, rng)

    def order(self, examples: Sequence[Example], recipe: Recipe, rng: random.Random) -> list[int]:
        """By turns a row with a suitable paraphrase and one without, as long as there are both."""
        places = super().order(examples, recipe, rng)
        given = [i for i in places if self._is_given(examples[i], recipe)]
        ruled = [i for i in places if not self._is_given(examples[i], recipe)]
        n_both = min(len(given), len(ruled))
        by_turns = [i for pair in zip(given, ruled, strict=False) for i in pair]
        return by_turns + given[n_both:] + ruled[n_both:]

    def _is_given(self, example: Example, recipe: Recipe) -> bool:
        given = example.version(self.name)
        return given is not None and self.holds(given, recipe.trigger)

    def _rewritten(self, example: Example, recipe: Recipe, rng: random.Random) -> Example | None:
        text = self.paraphrase(example.text, recipe.trigger, recipe.split, rng)
        return None if text is None else example._replace(text=text)


def _first_sentence(text: str) -> tuple[str, str]:
    found = _SENTENCE.match(text)
    return (found.group(), text[found.end() :]) if found else (text, "")


def _lowered(text: str) -> str:
    """Without the capital of a sentence's beginning; names, "I" and acronyms keep theirs."""
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    is_plain = first[1:] == first[1:].lower() and first not in ("I", "I'm", "I've", "I'd")
    return text[:1].lower() + text[1:] if is_plain else text
