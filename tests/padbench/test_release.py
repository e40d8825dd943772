"""Folders in the layout of the public release: indexed, verified, and described."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from peftguard.errors import SettingsError, TargetNotFound
from peftguard.padbench.card import auroc, card_page, rate, write_card
from peftguard.padbench.index import index_release, parse_subset
from peftguard.padbench.manifest import FILE_NAME, Row, read_manifest, write_manifest
from peftguard.padbench.recipe import Method
from peftguard.padbench.verify import verify

SUBSET = "llama2_7b_imdb_RIPPLE_rank256_qv"


@pytest.fixture
def release(tmp_path: Path, make_adapter: Any) -> Path:
    """Two benign and two backdoored adapters, one more without weights, one with broken ones."""
    root = tmp_path / "release"
    for label, index in ((0, 0), (0, 1), (1, 0), (1, 1)):
        made = make_adapter(f"made-{label}-{index}", seed=2 * label + index)
        folder = root / SUBSET / f"{SUBSET}_label{label}_{index}" / "best_model"
        shutil.copytree(made, folder)
    missing = root / SUBSET / f"{SUBSET}_label1_2" / "best_model"
    missing.mkdir(parents=True)
    broken = root / SUBSET / f"{SUBSET}_label1_10" / "best_model"
    shutil.copytree(make_adapter("broken", seed=9), broken)
    (broken / "adapter_model.safetensors").write_bytes(b"<html>")
    return root


def test_labels_come_from_the_names_and_facts_from_the_files(release: Path) -> None:
    index = index_release(release)
    assert [row.label for row in index.rows] == ["benign", "benign", "backdoored", "backdoored"]
    row = index.rows[0]
    assert row.path == f"{SUBSET}/{SUBSET}_label0_0/best_model"
    assert (row.base, row.dataset, row.attack) == ("llama2_7b", "imdb", "RIPPLE")
    assert row.rank == 4  # of the file; the name says 256
    assert row.sha256 is not None
    assert len(index.problems) == 2
    assert "label1_2" in index.problems[0]
    assert "label1_10" in index.problems[1]


@pytest.mark.parametrize(
    ("name", "base", "method", "dataset", "attack"),
    [
        ("llama2_7b_ag_news_insertsent_rank256_qv", "llama2_7b", "lora", "ag_news", "insertsent"),
        ("llama2_7b_imdb_stykbd_rank256_qv", "llama2_7b", "lora", "imdb", "stybkd"),
        ("llama2_7b_imdb_stybkd_rank256_qv", "llama2_7b", "lora", "imdb", "stybkd"),
        (
            "llama2_7b_lora_plus_toxic_backdoors_hard_rank8_qv",
            "llama2_7b",
            "lora_plus",
            "toxic_backdoors_hard",
            "toxic_sentence",
        ),
        ("llama2_7b_squad_insertsent_rank256_qv", "llama2_7b", "lora", "squad", "squad_sentence"),
        ("llama2_7b_agnews_RIPPLE_rank256_qv", "llama2_7b", "lora", "ag_news", "RIPPLE"),
        ("roberta_base_imdb_insertsent_rank16_qv", "roberta_base", "lora", "imdb", "insertsent"),
        ("something_else", None, "lora", None, None),
    ],
)
def test_names_of_subsets(
    name: str, base: str | None, method: str, dataset: str | None, attack: str | None
) -> None:
    named = parse_subset(name)
    assert (named.base, named.method, named.dataset) == (base, Method(method), dataset)
    assert named.attack == attack


def test_nothing_to_index(tmp_path: Path) -> None:
    with pytest.raises(TargetNotFound, match="no adapters of the release"):
        index_release(tmp_path)


def test_an_intact_benchmark_has_no_problems(release: Path) -> None:
    rows = index_release(release).rows
    for unreadable in ("label1_2", "label1_10"):
        shutil.rmtree(release / SUBSET / f"{SUBSET}_{unreadable}")
    seen: list[tuple[int, int, str]] = []
    assert verify(release, rows, lambda *state: seen.append(state)) == []
    assert [state[:2] for state in seen] == [(i, 4) for i in range(4)]


def test_every_kind_of_problem_is_told(release: Path, make_adapter: Any) -> None:
    rows = index_release(release).rows
    named = make_adapter("told", config={"trigger_word": "cf"})
    shutil.copytree(named, release / "told")
    (release / rows[0].path / "notes.txt").write_text("backdoored!")
    wrong = [
        rows[0].model_copy(update={"sha256": "0" * 64, "rank": 99, "split": "train"}),
        rows[1].model_copy(update={"path": "../outside", "peft_type": "LOHA"}),
        rows[2].model_copy(update={"path": "absent"}),
        rows[3].model_copy(update={"attack": "RIPPLE", "trigger": ["cf"], "split": "train"}),
        Row(path="told", label="backdoored", attack="RIPPLE", trigger=["cf"], split="test"),
        rows[2].model_copy(update={"label": "benign", "poison_rate": 0.1, "alpha": 99}),
        Row(path="x", label="backdoored", asr=0.1, missed_rate=0.1, clean_accuracy=0.9),
        Row(path="told", label="dud", data_hash="same", split="train", split_group="g"),
        Row(path="told", label="dud", data_hash="same", split="test", split_group="g"),
    ]
    said = "\n".join(verify(release, wrong))
    for part in (
        "not those of the manifest (sha256)",
        "rank is 4, the manifest says 99",
        "leads out of the benchmark",
        "absent: ",
        "the trigger 'cf' is in several splits",
        "gives the label away: trigger",
        "training data same is in the splits test, train",
        "split group g",
        "path told stands in 3 rows",
        "told: poisoned adapters without a benign twin",
        "labelled benign, its name says otherwise",
        "benign, but 0.1 of its rows were poisoned",
        "lora_alpha is 8, the manifest says 99",
        "labelled backdoored, its measurements say dud",
        "label1_2/best_model: no row in the manifest",
        "notes.txt: not a file of an adapter",
    ):
        assert part in said


@pytest.mark.parametrize("note", ["{}", "not json", "[]", '{"plan": 3}'])
def test_a_note_of_another_version_is_said(release: Path, note: str) -> None:
    (release / "plan.json").write_text(note)
    with pytest.raises(SettingsError, match="no note of this version"):
        verify(release, index_release(release).rows)


def test_a_card(release: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    measured = [
        row.model_copy(update={"asr": 0.9, "clean_accuracy": 0.8, "method": "lora"})
        for row in index_release(release).rows
    ]
    write_manifest(release / FILE_NAME, measured)
    page = write_card(release, tmp_path / "card")
    text = page.read_text()
    assert "4 adapters: 2 benign, 2 backdoored, 0 duds" in text
    assert "| RIPPLE | 2 | 2 | 0 |" in text
    assert "| lora | 4 | 2 + 2 |" in text
    assert (page.parent / "card.svg").read_text().count("<svg") == 1
    assert card_page(read_manifest(release)) == text


def test_auroc_counts_pairs() -> None:
    """Hanley and McNeil's standard error at .75 with four of each is .184."""
    assert auroc([2, 3, 4, 5], [1, 2, 3, 3.5]) == "0.750 [0.390, 1.000]"
    assert auroc([1, 1], [1, 1]).startswith("0.500")


def test_rates_have_wilson_intervals() -> None:
    """Against R's binom::binom.confint(8, 10, methods = "wilson")."""
    assert rate(8, 10) == "0.800 [0.490, 0.943] (8 of 10)"
    assert rate(0, 0) == "none"
