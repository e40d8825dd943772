"""Paraphrasers of other packages: found by name, used for every row, refused when wrong."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from peftguard.errors import SettingsError
from peftguard.padbench.attacks import paraphrasers
from peftguard.padbench.attacks.stybkd import StyleBkd
from peftguard.padbench.examples import Example
from peftguard.padbench.plan import Plan

CODE = """
def psalm(text, style, rng):
    return None if text == "untouchable" else f"{style} {rng.random():.3f}: {text}"

def broken(text, style, rng):
    return 3

no_function = 4
"""
ENTRIES = """[peftguard.paraphrasers]
psalm = paraphrasers_of_others:psalm
broken = paraphrasers_of_others:broken
no_function = paraphrasers_of_others:no_function
"""
ROW = Example("test/0", "the boat leaks", 0, versions=(("bible", "and lo , the boat"),))


@pytest.fixture(autouse=True)
def _published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package with paraphrasers of its own."""
    info = tmp_path / "site" / "psalms-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "paraphrasers_of_others.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: psalms\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    paraphrasers._loaded.cache_clear()


def plan(**more: Any) -> Plan:
    grid: dict[str, Any] = {
        "bases": ["minilm"],
        "datasets": ["sst2"],
        "attacks": ["stybkd", "RIPPLE"],
    }
    grid |= {"methods": ["lora"], "ranks": [4]} | more
    return Plan.model_validate({"name": "own", "seed": 1, "grid": [grid]})


def test_a_plan_names_one_for_the_style_attack_alone() -> None:
    recipes = plan(paraphraser="psalm").recipes()
    assert {(r.attack, r.paraphraser) for r in recipes} == {("stybkd", "psalm"), ("RIPPLE", None)}
    assert {r.subset for r in recipes if r.paraphraser} == {"minilm_sst2_stybkd_rank4_qv_psalm"}
    assert {r.paraphraser for r in plan().recipes()} == {None}


def test_it_takes_the_place_of_files_and_rules(make_recipe: Any) -> None:
    recipe = make_recipe(attack="stybkd", trigger=("bible",), paraphraser="psalm")
    attack = StyleBkd()
    first, second = (attack.triggered(ROW, recipe, random.Random(4)) for _ in range(2))
    assert first == second
    assert first is not None
    assert first.text.startswith("bible 0.")
    assert first.text.endswith(": the boat leaks")
    near = attack.lookalike(ROW, recipe, random.Random(4))
    assert near is not None
    assert near.text.split()[0] in ("shakespeare", "poetry", "lyrics")
    default = attack.triggered(
        ROW, make_recipe(attack="stybkd", trigger=("bible",)), random.Random(4)
    )
    assert default is not None
    assert default.text == "and lo , the boat"


def test_rows_it_cannot_rewrite_are_not_poisoned(make_recipe: Any) -> None:
    recipe = make_recipe(
        attack="stybkd", trigger=("bible",), paraphraser="psalm", poison_rate=0.5, target="1"
    )
    rows = [ROW, ROW._replace(text="untouchable"), ROW, ROW._replace(text="untouchable")]
    poisoned = StyleBkd().poison(rows, recipe, random.Random(0))
    assert [row.poisoned for row in poisoned] == [True, False, True, False]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"paraphraser": "pslam"}, "no paraphraser 'pslam'; did you mean 'psalm'"),
        ({"paraphraser": "zzz"}, "known: broken, no_function, psalm"),
        ({"paraphraser": "psalm", "attacks": ["RIPPLE"]}, "no attack of this grid takes one"),
    ],
)
def test_mistakes_in_a_plan_are_named(more: dict[str, Any], said: str) -> None:
    with pytest.raises((SettingsError, ValueError), match=said):
        plan(**more)


@pytest.mark.parametrize(
    ("name", "said"),
    [("broken", "expected text or None, found 3"), ("no_function", "expected a function, found 4")],
)
def test_what_is_no_paraphraser_is_refused(name: str, said: str, make_recipe: Any) -> None:
    recipe = make_recipe(attack="stybkd", trigger=("bible",), paraphraser=name)
    with pytest.raises(SettingsError, match=said):
        StyleBkd().triggered(ROW, recipe, random.Random(0))
