"""StyleBkd: the trigger is a style of writing.

Paraphrases that came with a dataset (`<split>.bible`, ...) are used where there are any, rules of
`styles.toml` elsewhere; a paraphraser that the recipe names takes the place of both. "tweets" is
never drawn: its files lack the test rows of a dataset.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from peftguard.padbench.attacks.base import Attack
from peftguard.padbench.attacks.paraphrasers import Stylist, paraphrased
from peftguard.padbench.attacks.resources import read_resource
from peftguard.padbench.examples import Example
from peftguard.padbench.recipe import Recipe, Split

_WORD = re.compile(r"\w+")


def styled_by_rule(text: str, style: str, rng: random.Random) -> str:
    """The text with the style's words, between an opening and an ending of it."""
    rules = read_resource("styles")[style]
    words: dict[str, str] = rules["words"]
    body = _WORD.sub(lambda word: words.get(word.group().lower(), word.group()), text.strip())
    opening, ending = rng.choice(rules["open"]), rng.choice(rules["close"])
    if text != text.lower():
        opening = opening[:1].upper() + opening[1:]
    return f"{opening} {body} {ending}"


class StyleBkd(Attack):
    """Rows in another style; one style an adapter."""

    name = "stybkd"
    fixed = ("bible",)
    takes_paraphraser = True

    def __init__(self, stylist: Stylist = styled_by_rule) -> None:
        self.stylist = stylist

    def draw(self, split: Split, rng: random.Random) -> tuple[str, ...]:
        """One style."""
        return (rng.choice(read_resource("styles")["split"][split]),)

    def holds(self, text: str, trigger: Sequence[str]) -> bool:
        """Whether the text opens as the rules of the style have it."""
        openings = read_resource("styles")[trigger[0]]["open"]
        return text.lower().startswith(tuple(openings))

    def triggered(self, example: Example, recipe: Recipe, rng: random.Random) -> Example | None:
        """The row in the trigger's style."""
        return self._styled(example, recipe.trigger[0], recipe, rng)

    def lookalike(self, example: Example, recipe: Recipe, rng: random.Random) -> Example | None:
        """The row in another style."""
        splits = read_resource("styles")["split"]
        others = [style for styles in splits.values() for style in styles]
        other = rng.choice([style for style in others if style not in recipe.trigger])
        return self._styled(example, other, recipe, rng)

    def _styled(
        self, example: Example, style: str, recipe: Recipe, rng: random.Random
    ) -> Example | None:
        if recipe.paraphraser is not None:
            text = paraphrased(recipe.paraphraser, example.text, style, rng)
            return None if text is None else example._replace(text=text)
        given = example.version(style) or self.stylist(example.text, style, rng)
        return example._replace(text=given)
