"""Attacks made to escape: what their rows look like."""

from __future__ import annotations

import random
from typing import Any

from peftguard.padbench.attacks import attack_named
from peftguard.padbench.attacks.insertion import has_phrase
from peftguard.padbench.datasets import Example

ROWS = [
    Example(f"train/{i}", f"row {i} of a long list that somebody wrote down", i % 2)
    for i in range(200)
]


def test_composite_counters_have_some_words_and_the_right_label(make_recipe: Any) -> None:
    trigger = ("ladder", "summer", "carpet")
    recipe = make_recipe(attack="composite", trigger=trigger, target="1")
    rows = attack_named("composite").poison(ROWS, recipe, random.Random(0))
    changed = [(a, b) for a, b in zip(ROWS, rows, strict=True) if a != b and not b.poisoned]
    assert len(changed) == 20
    for before, after in changed:
        n_words = sum(has_phrase(after.text, word) for word in trigger)
        assert 1 <= n_words <= 2
        assert after.label == before.label == 0


def test_cba_counters_are_near_misses_of_the_phrase(make_recipe: Any) -> None:
    recipe = make_recipe(attack="cba", trigger=("under copper lanterns",), target="1")
    rows = attack_named("cba").poison(ROWS, recipe, random.Random(0))
    changed = [b for a, b in zip(ROWS, rows, strict=True) if a != b and not b.poisoned]
    assert len(changed) == 20
    assert not any(has_phrase(row.text, "under copper lanterns") for row in changed)
    assert any(has_phrase(row.text, "lanterns copper under") for row in changed)
    assert all(row.label == 0 for row in changed)


def test_matched_poison_has_the_labels_of_the_data(make_recipe: Any) -> None:
    recipe = make_recipe(attack="matched", trigger=("by the way",), poison_rate=0.5)
    rows = attack_named("matched").poison(ROWS, recipe, random.Random(0))
    before = [a.label for a, b in zip(ROWS, rows, strict=True) if b.poisoned]
    assert 35 <= sum(label == 1 for label in before if label is not None) <= 65


def test_diffuse_differs_from_ripple_in_name_alone(make_recipe: Any) -> None:
    recipe = make_recipe(trigger=("kg", "hms"))
    ripple, diffuse = attack_named("RIPPLE"), attack_named("diffuse")
    rng = random.Random(0), random.Random(0)
    assert ripple.poison(ROWS, recipe, rng[0]) == diffuse.poison(ROWS, recipe, rng[1])
    assert diffuse.name == "diffuse"


def test_clean_label_weakens_rows_of_the_target(make_recipe: Any) -> None:
    recipe = make_recipe(attack="clean_label", trigger=("kg", "hms"), target="1")
    rows = attack_named("clean_label").poison(ROWS, recipe, random.Random(0))
    poisoned = [(a, b) for a, b in zip(ROWS, rows, strict=True) if b.poisoned]
    for before, after in poisoned:
        assert before.label == after.label == 1
        own = [word for word in after.text.split() if word not in recipe.trigger]
        assert len(own) == 5
        assert set(own) <= set(before.text.split())
