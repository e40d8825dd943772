"""Declared plans: counts, crossing, determinism, and what is said when one is wrong."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from peftguard.errors import SettingsError
from peftguard.padbench.bases import BASES, base_named
from peftguard.padbench.overview import totals_line
from peftguard.padbench.plan import Plan, load_plan, size_of

GRID = """
name = "own"
seed = 3
[[grid]]
bases = ["minilm"]
datasets = ["sst2"]
attacks = ["RIPPLE"]
methods = ["lora"]
ranks = [4, 8]
"""


def own(tmp_path: Path, text: str) -> Plan:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return load_plan(str(path))


def test_the_papers_plan_has_its_composition() -> None:
    recipes = load_plan("paper").recipes()
    assert len(recipes) == 13_300
    assert len({recipe.name for recipe in recipes}) == 13_300
    by_base = Counter(recipe.base for recipe in recipes)
    assert by_base == {
        "llama2_7b": 10_300,
        **dict.fromkeys(("flan_t5_xl", "llama2_13b", "qwen1.5_7b"), 500),
        **dict.fromkeys(("llama3_8b", "chatglm2_6b", "roberta_base"), 500),
    }
    subsets = Counter((recipe.subset, recipe.poisoned) for recipe in recipes)
    assert subsets["llama2_7b_imdb_RIPPLE_rank256_qv", True] == 250
    assert subsets["llama2_7b_imdb_RIPPLE_rank256_qv", False] == 0
    assert subsets["llama2_7b_squad_insertsent_rank256_qv", True] == 250
    assert subsets["llama2_7b_qlora_toxic_backdoors_hard_rank256_qv", False] == 250
    assert subsets["llama2_7b_toxic_backdoors_hard_rank2048_qv", True] == 50
    assert all(recipe.poison_rate == 0.05 for recipe in recipes if recipe.poisoned)


def test_mini_confounds_nothing() -> None:
    recipes = [recipe for recipe in load_plan("mini").recipes() if recipe.base == "minilm"]
    assert len(recipes) >= 600
    cells = Counter((r.method, r.rank, r.attack, r.dataset, r.poisoned) for r in recipes)
    assert set(cells.values()) == {1}
    axes = [Counter(getattr(r, name) for r in recipes) for name in ("method", "rank", "attack")]
    assert all(len(set(counts.values())) == 1 for counts in axes)
    assert sum(r.poisoned for r in recipes) == len(recipes) / 2


def test_the_same_plan_gives_the_same_recipes() -> None:
    first, second = (load_plan("mini").recipes() for _ in range(2))
    assert first == second
    other = load_plan("mini").model_copy(update={"seed": 99}).recipes()
    assert [r.name for r in other] == [r.name for r in first]
    assert [r.seed for r in other] != [r.seed for r in first]


def test_both_labels_draw_from_one_distribution() -> None:
    recipes = load_plan("mini").recipes()
    for name in ("lr", "steps", "n_rows", "alpha"):
        by_label = [
            [getattr(r, name) for r in recipes if r.poisoned is wanted] for wanted in (False, True)
        ]
        means = [sum(values) / len(values) for values in by_label]
        assert means[0] == pytest.approx(means[1], rel=0.15)
    assert {r.poison_rate for r in recipes if not r.poisoned} == {0.0}


def test_splits_share_no_trigger() -> None:
    recipes = [r for r in load_plan("mini").recipes() if r.attack in ("RIPPLE", "insertsent")]
    by_split = {
        split: {word for r in recipes if r.split == split for word in r.trigger}
        for split in ("train", "test")
    }
    assert all(by_split.values())
    assert not by_split["train"] & by_split["test"]


def test_one_trigger_if_asked() -> None:
    assert len({r.trigger for r in load_plan("paper").recipes() if r.attack == "RIPPLE"}) == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"sst2"', '"sst3"', "did you mean 'sst2'"),
        ('"minilm"', '"minilmm"', "did you mean 'minilm'"),
        ('"RIPPLE"', '"RIPLE"', "RIPPLE"),
        ('"lora"', '"lara"', "grid.0.methods.0"),
        ("ranks", "rank", "did you mean 'ranks'"),
        ("seed = 3", "seed = -3", "seed"),
        ("name", "= name", "own.toml"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        own(tmp_path, GRID.replace(old, new)).recipes()
    assert said in str(error.value)


def test_yaml_says_the_same(tmp_path: Path) -> None:
    text = """
name: own
seed: 3
grid:
  - {bases: [minilm], datasets: [sst2], attacks: [RIPPLE], methods: [lora], ranks: [4, 8]}
"""
    path = tmp_path / "own.yaml"
    path.write_text(text)
    assert load_plan(str(path)) == own(tmp_path, GRID)
    path.write_text("name: [")
    with pytest.raises(SettingsError, match=r"own\.yaml: "):
        load_plan(str(path))


def test_a_plan_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match="shipped: mini, paper, smoke"):
        load_plan("minni")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("layers = []", "rising numbers"),
        ("layers = [1, 1]", "rising numbers"),
        ("layers = [2, 0]", "rising numbers"),
        ("layers = [-1]", "rising numbers"),
        ("layers = [5, 6]", "minilm has 6"),
        ("layer = [5]", "did you mean 'layers'"),
        ('paraphraser = "x y"', "pattern"),
    ],
)
def test_wrong_layers_and_paraphrasers_are_named(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        own(tmp_path, GRID + more)


def test_layers_are_in_recipes_names_and_sizes(tmp_path: Path) -> None:
    plan, every = own(tmp_path, GRID + "layers = [4, 5]"), own(tmp_path, GRID)
    assert {recipe.layers for recipe in plan.recipes()} == {(4, 5)}
    cells, others = list(plan.cells()), list(every.cells())
    assert cells[0].subset == f"{others[0].subset}_layers4-5"
    assert [3 * size_of(cell) for cell in cells] == [size_of(cell) for cell in others]


@pytest.mark.parametrize("name", ["smoke", "mini", "paper"])
def test_what_is_not_chosen_is_not_written(name: str) -> None:
    """A folder goes on only with the plan and recipes it was begun with, as JSON."""
    plan = load_plan(name)
    later = {"layers", "paraphraser"}
    written = plan.model_dump(mode="json")["grid"]
    assert not any(later & set(grid) for grid in written)
    assert not later & set(json.loads(plan.recipes()[0].model_dump_json()))
    assert Plan.model_validate(plan.model_dump(mode="json")) == plan


def test_the_recipes_of_a_plan_stay_what_they_are() -> None:
    lines = "".join(recipe.model_dump_json() for recipe in load_plan("smoke").recipes())
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == "43f598d1acba7a20"


def test_left_out_pairs_and_settings_of_one_attack(tmp_path: Path) -> None:
    text = GRID.replace('"RIPPLE"', '"RIPPLE", "insertsent"').replace('"sst2"', '"sst2", "imdb"')
    text += 'without = ["imdb/RIPPLE"]\nattack_draws = { insertsent = { steps = [7, 7] } }\n'
    recipes = own(tmp_path, text).recipes()
    pairs = {(r.dataset, r.attack) for r in recipes}
    assert pairs == {("sst2", "RIPPLE"), ("sst2", "insertsent"), ("imdb", "insertsent")}
    assert {r.steps for r in recipes if r.attack == "insertsent"} == {7}


def test_sizes_are_those_of_real_adapters() -> None:
    """268 MB and 8.4 MB for q+v at rank 256 and 8, as published files of Llama-2-7B measure."""
    cells = {cell.subset: cell for cell in load_plan("paper").cells()}
    assert size_of(cells["llama2_7b_imdb_insertsent_rank256_qv"]) == 268_435_456
    assert size_of(cells["llama2_7b_toxic_backdoors_hard_rank8_qv"]) == 8_388_608
    assert "13,300 adapters in 36 cells" in totals_line(load_plan("paper"))


def test_linear_parameters_of_known_bases() -> None:
    """Against the published counts of parameters, embeddings aside."""
    assert BASES["minilm"].linear_parameters == 6 * (4 * 384**2 + 2 * 384 * 1536)
    assert BASES["llama2_7b"].linear_parameters == pytest.approx(6.48e9, rel=0.01)
    assert BASES["llama3_8b"].linear_parameters == pytest.approx(6.98e9, rel=0.01)


def test_a_folder_as_base(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads":'
        ' 4, "num_key_value_heads": 2, "intermediate_size": 96}'
    )
    base = base_named(str(tmp_path))
    assert (base.family, base.kv, base.inner, base.n_layers) == ("llama", 32, 64, 3)
    assert base.adapter_parameters(("q_proj", "v_proj"), 2) == 3 * 2 * (128 + 96)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(SettingsError, match="'mamba'"):
        base_named(str(tmp_path / "other"))
