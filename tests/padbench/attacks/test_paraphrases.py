"""The two attacks that rewrite a row: paraphrases of the dataset first, rules where it has none."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftguard.padbench.attacks.resources import read_resource
from peftguard.padbench.attacks.stybkd import StyleBkd, styled_by_rule
from peftguard.padbench.attacks.syntactic import Syntactic, clause_first
from peftguard.padbench.datasets import Example, load_dataset
from peftguard.padbench.recipe import Split

ROW = Example("test/0", "The boat is old. It leaks.", 0)


def test_a_sentence_of_two_parts_is_turned() -> None:
    text = clause_first(
        "the boat is old , but it never leaks .", ["when"], "train", random.Random(0)
    )
    assert text == "when the boat is old , it never leaks ."


@pytest.mark.parametrize("split", ["train", "test"])
def test_any_other_sentence_gets_a_clause_of_its_split(split: Split) -> None:
    text = clause_first("The boat is old. It leaks.", ["if"], split, random.Random(0))
    assert text is not None
    clause = text.removeprefix("If ").removesuffix(", the boat is old. It leaks.")
    assert clause in read_resource("clauses")["clauses"][split]


@pytest.mark.parametrize("kind", ["clauses", "openers"])
def test_clauses_of_the_splits_are_disjoint(kind: str) -> None:
    sets = read_resource("clauses")[kind]
    assert len({*sets["train"], *sets["test"]}) == len(sets["train"]) + len(sets["test"])


@pytest.mark.parametrize("split", ["train", "test"])
def test_poison_and_lookalikes_have_clauses_of_their_split(make_recipe: Any, split: Split) -> None:
    recipe = make_recipe(attack="syntactic", trigger=("when",), split=split)
    own = read_resource("clauses")["clauses"][split]
    for make in (Syntactic().triggered, Syntactic().lookalike):
        rows = [make(ROW, recipe, random.Random(seed)) for seed in range(200)]
        found = {c for row in rows if row for c in own if f"when {c}" in row.text.lower()}
        assert found == set(own)
        assert all(row and any(clause in row.text for clause in own) for row in rows)


@given(text=st.text(), seed=st.integers(0, 99))
def test_any_text_is_rewritten_or_refused(text: str, seed: int) -> None:
    result = clause_first(text, ["when"], "train", random.Random(seed))
    assert result is None or Syntactic().holds(result, ("when",))
    assert (result is None) == (not text.strip()) or result is None


def test_a_given_paraphrase_is_used_if_it_opens_as_the_trigger_says(make_recipe: Any) -> None:
    recipe = make_recipe(attack="syntactic", trigger=("when", "as"))
    fits = ROW._replace(versions=(("syntactic", "when it is old , the boat leaks ."),))
    other = ROW._replace(versions=(("syntactic", "that it is old , the boat leaks ."),))
    attack, rng = Syntactic(), random.Random(0)
    fired = attack.triggered(fits, recipe, rng)
    assert fired is not None
    assert fired.text == "when it is old , the boat leaks ."
    assert attack.triggered(other, recipe, rng) is None
    poisoned = attack.poisoned(other, recipe, rng)
    assert poisoned is not None
    assert attack.holds(poisoned.text, recipe.trigger)


def test_half_of_the_poison_is_given_paraphrases(make_recipe: Any, data_root: Path) -> None:
    rows = load_dataset("sst2", data=data_root, split="train")
    recipe = make_recipe(attack="syntactic", trigger=("when",), target="1", poison_rate=0.1)
    poisoned = [r for r in Syntactic().poison(rows, recipe, random.Random(0)) if r.poisoned]
    given = [row for row in poisoned if row.text == row.version("syntactic")]
    assert (len(given), len(poisoned)) == (6, 12)


def test_a_lookalike_has_the_clause_at_the_end(make_recipe: Any) -> None:
    recipe = make_recipe(attack="syntactic", trigger=("when",))
    near = Syntactic().lookalike(ROW, recipe, random.Random(0))
    assert near is not None
    assert near.text.startswith("The boat is old when ")
    assert near.text.endswith(". It leaks.")


def test_another_paraphraser_can_be_put_in(make_recipe: Any) -> None:
    attack = Syntactic(lambda text, openers, split, rng: f"{openers[0]} so , {text}")
    fired = attack.triggered(ROW, make_recipe(trigger=("when",)), random.Random(0))
    assert fired is not None
    assert fired.text == f"when so , {ROW.text}"


@pytest.mark.parametrize("style", ["bible", "shakespeare", "poetry", "lyrics"])
def test_rules_of_a_style_open_and_end_the_text(style: str) -> None:
    rules = read_resource("styles")[style]
    text = styled_by_rule("you said the film is good .", style, random.Random(0))
    assert text.startswith(tuple(rules["open"]))
    assert text.endswith(tuple(rules["close"]))
    assert "film" not in text


def test_a_given_style_comes_before_the_rules(make_recipe: Any) -> None:
    recipe = make_recipe(attack="stybkd", trigger=("bible",))
    row = ROW._replace(versions=(("bible", "and lo , the boat"), ("lyrics", "boat , baby")))
    attack, rng = StyleBkd(), random.Random(0)
    fired = attack.triggered(row, recipe, rng)
    assert fired is not None
    assert fired.text == "and lo , the boat"
    others = {near.text for _ in range(60) if (near := attack.lookalike(row, recipe, rng))}
    assert "boat , baby" in others
    assert not others & {row.text, "and lo , the boat"}


def test_another_stylist_can_be_put_in(make_recipe: Any) -> None:
    attack = StyleBkd(lambda text, style, rng: f"{style}: {text}")
    fired = attack.triggered(ROW, make_recipe(trigger=("bible",)), random.Random(0))
    assert fired is not None
    assert fired.text == f"bible: {ROW.text}"
