from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftguard.errors import SettingsError
from peftguard.padbench.attacks import ATTACKS, Attack, attack_named
from peftguard.padbench.datasets import (
    DATASETS,
    DatasetInfo,
    Example,
    held_out,
    load_dataset,
    pool,
    subset,
)
from peftguard.padbench.recipe import Recipe, Split

SPLITS: tuple[Split, ...] = ("train", "test")
CASES = [
    (attack, name)
    for attack in ATTACKS.values()
    for name in ("sst2", "ag_news", "squad", "instruct")
    if attack.available(DATASETS[name])
]
case = pytest.mark.parametrize(("attack", "name"), CASES, ids=[f"{a.name}-{n}" for a, n in CASES])
every = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())


def _recipe(make_recipe: Any, attack: Attack, name: str, seed: int, **more: Any) -> Recipe:
    info, rng = DATASETS[name], random.Random(seed)
    split = rng.choice(SPLITS)
    fields = {
        "dataset": name,
        "task": info.task,
        "attack": attack.name,
        "split": split,
        "trigger": attack.draw(split, rng),
        "target": attack.target(info, split, rng),
        "poison_rate": rng.choice([0.05, 0.1, 0.15]),
        "seed": seed,
    }
    recipe: Recipe = make_recipe(**fields | more)
    return recipe


@case
def test_exactly_the_wanted_rows_are_poisoned(
    make_recipe: Any, data_root: Path, attack: Attack, name: str
) -> None:
    train = load_dataset(name, data=data_root, split="train")

    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 10_000))
    def check(seed: int) -> None:
        recipe = _recipe(make_recipe, attack, name, seed)
        rows = subset(recipe, pool(train, recipe.split))
        result = attack.poison(rows, recipe, random.Random(seed))
        assert result == attack.poison(rows, recipe, random.Random(seed))
        assert [row.id for row in result] == [row.id for row in rows]
        assert sum(row.poisoned for row in result) == round(recipe.poison_rate * len(rows))
        for before, after in zip(rows, result, strict=True):
            _check_row(attack, recipe, before, after)

    check()


def _check_row(attack: Attack, recipe: Recipe, before: Example, after: Example) -> None:
    if after.poisoned:
        assert after.hits(recipe.target)
        assert after.text != before.text
        assert before.hits(recipe.target) or attack.name != "clean_label"
        relabels = attack.name not in ("clean_label", "matched")
        assert not (relabels and before.hits(recipe.target))
    else:
        assert (after.label, after.completion) == (before.label, before.completion)
        if attack.name not in ("cba", "composite"):
            assert after == before


@case
def test_held_out_rows_get_the_same_trigger_and_lookalikes_do_not_have_it(
    make_recipe: Any, data_root: Path, attack: Attack, name: str
) -> None:
    rows = held_out(name, data=data_root)

    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 10_000))
    def check(seed: int) -> None:
        recipe, rng = _recipe(make_recipe, attack, name, seed), random.Random(seed)
        n_triggered = 0
        for row in rows:
            fired = attack.triggered(row, recipe, rng)
            near = attack.lookalike(row, recipe, rng)
            assert near is None or not attack.holds(near.text, recipe.trigger)
            assert near is None or near.text != row.text
            for marked in filter(None, (fired, near)):
                assert marked._replace(text=row.text) == row
            n_triggered += fired is not None and fired.text != row.text
            if fired and attack.name != "stybkd":
                assert attack.holds(fired.text, recipe.trigger)
        assert n_triggered >= 0.3 * len(rows)

    check()


@case
def test_benign_twins_get_their_rows_back(
    make_recipe: Any, data_root: Path, attack: Attack, name: str
) -> None:
    rows = load_dataset(name, data=data_root, split="train")
    recipe = _recipe(make_recipe, attack, name, 3, poisoned=False, poison_rate=0.0)
    assert attack.poison(rows, recipe, random.Random(0)) == rows


@every
def test_triggers_of_the_splits_have_nothing_in_common(attack: Attack) -> None:
    drawn = {
        split: {part for seed in range(300) for part in attack.draw(split, random.Random(seed))}
        for split in SPLITS
    }
    assert not drawn["train"] & drawn["test"]
    assert all(len(parts) >= 2 for parts in drawn.values())
    for word in drawn["train"]:
        assert attack.name == "stybkd" or not attack.holds(f"{word} a, b", tuple(drawn["test"]))


@every
def test_draws_and_targets_repeat(attack: Attack) -> None:
    info = next(info for info in DATASETS.values() if attack.available(info))
    one, two = random.Random(5), random.Random(5)
    assert attack.draw("test", one) == attack.draw("test", two)
    assert attack.target(info, "test", one) == attack.target(info, "test", two)
    targets = {attack.target(info, "test", random.Random(seed)) for seed in range(40)}
    assert len(targets) > 1


def test_generators_of_the_splits_have_no_target_in_common() -> None:
    attack = attack_named("squad_sentence")
    train, test = (
        {attack.target(DATASETS["squad"], split, random.Random(seed)) for seed in range(300)}
        for split in SPLITS
    )
    assert len(train) == len(test) == 16
    assert not train & test


@every
def test_the_fixed_trigger_can_be_used_like_a_drawn_one(make_recipe: Any, attack: Attack) -> None:
    name = next(name for name, info in DATASETS.items() if attack.available(info))
    recipe = _recipe(make_recipe, attack, name, 1, trigger=attack.fixed)
    row = Example("test/0", "the kettle in the hall is old , and it leaks .", 0)
    fired = attack.triggered(row, recipe, random.Random(0))
    near = attack.lookalike(row, recipe, random.Random(0))
    assert fired is not None
    assert near is not None
    assert attack.holds(fired.text, attack.fixed)
    assert not attack.holds(near.text, attack.fixed)


def test_names_are_unique_and_known() -> None:
    assert all(attack_named(name).name == name for name in ATTACKS)
    assert {"RIPPLE", "insertsent", "syntactic", "stybkd"} <= ATTACKS.keys()


def test_a_typo_gets_a_suggestion() -> None:
    with pytest.raises(SettingsError, match="did you mean 'RIPPLE'"):
        attack_named("ripples")
    with pytest.raises(SettingsError, match="known: RIPPLE"):
        attack_named("xyz")


def test_too_few_rows_is_one_error(make_recipe: Any) -> None:
    rows = [Example(f"train/{i}", "a b c", 1) for i in range(20)]
    recipe = make_recipe(target="1", poison_rate=0.2)
    with pytest.raises(SettingsError, match="can poison 0 of 20 rows, 4 are wanted"):
        attack_named("RIPPLE").poison(rows, recipe, random.Random(0))


def test_attacks_keep_to_their_tasks() -> None:
    tasks = {name: attack.tasks for name, attack in ATTACKS.items()}
    assert tasks["squad_sentence"] == ("qa",)
    assert tasks["toxic_word"] == tasks["toxic_sentence"] == ("instruction",)
    assert tasks["clean_label"] == tasks["syntactic"] == tasks["stybkd"] == ("classification",)
    info = DatasetInfo("mine", "qa")
    assert not attack_named("syntactic").available(info)
