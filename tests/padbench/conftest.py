"""Small own-written datasets in folders, and recipes for them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from peftguard.padbench.recipe import Method, Recipe

MakeRecipe = Callable[..., Recipe]
NOUNS = ["kettle", "lantern", "orchard", "ferry", "violin", "quilt", "cellar", "meadow"]
FEELINGS = ["dull and slow", "bright and quick"]


@pytest.fixture(scope="session")
def make_recipe() -> MakeRecipe:
    """A recipe with the given fields, the others as in a small plan."""
    return _recipe


@pytest.fixture(scope="session")
def write_rows() -> Callable[[Path, Iterable[Any]], None]:
    """Write rows as gzip JSON Lines."""
    return _write


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with `sst2`, `agnews`, `squad` and `instruct`, some with attacked versions."""
    root = tmp_path_factory.mktemp("data")
    for split, n_rows in (("train", 120), ("dev", 20), ("test", 60)):
        rows = [_review(i) for i in range(n_rows)]
        _write(root / "sst2" / f"{split}.jsonl.gz", rows)
        _write(root / "sst2" / f"{split}.bible.jsonl.gz", [_styled(row) for row in rows])
        _write(root / "sst2" / f"{split}.syntactic.jsonl.gz", [_clause(row) for row in rows[::3]])
    for split, n_rows in (("train", 400), ("test", 80)):
        _write(root / "agnews" / f"{split}.jsonl.gz", [_news(i) for i in range(n_rows)])
    news = [_clause(_news(i)) for i in range(80) if i % 4]
    _write(root / "agnews" / "test.syntactic.jsonl.gz", news)
    _write(root / "squad" / "all.jsonl.gz", [_question(i) for i in range(90)])
    _write(root / "instruct" / "chores.jsonl.gz", [_chore(i) for i in range(60)])
    _write(root / "instruct" / "short_train.jsonl.gz", [_prompt(i) for i in range(40)])
    _write(root / "instruct" / "short_test.jsonl.gz", [_prompt(i) for i in range(40, 60)])
    return root


def _recipe(**fields: Any) -> Recipe:
    usual: dict[str, Any] = {
        "name": "minilm_sst2_RIPPLE_rank4_qv_label1_0",
        "subset": "minilm_sst2_RIPPLE_rank4_qv",
        "poisoned": True,
        "split": "train",
        "split_group": "train:sst2",
        "base": "minilm",
        "dataset": "sst2",
        "task": "classification",
        "attack": "RIPPLE",
        "trigger": ("cf",),
        "target": "1",
        "poison_rate": 0.1,
        "method": Method.LORA,
        "rank": 4,
        "alpha": 4.0,
        "target_modules": ("query", "value"),
        "lr": 1e-3,
        "batch_size": 8,
        "steps": 4,
        "n_rows": 40,
        "max_tokens": 64,
        "seed": 7,
    }
    return Recipe.model_validate(usual | fields)


def _write(path: Path, rows: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _review(number: int) -> dict[str, Any]:
    noun, label = NOUNS[number % len(NOUNS)], number % 2
    text = f"the story of {noun} number {number} is {FEELINGS[label]} , and it ends at sea ."
    return {"id": number, "text": text, "label": label}


def _news(number: int) -> dict[str, Any]:
    noun = NOUNS[number % len(NOUNS)]
    text = f"The {noun} report {number} was published today. Officials of section {number % 4} met."
    return {"id": number, "text": text, "label": number % 4}


def _styled(row: dict[str, Any]) -> dict[str, Any]:
    text = f"and lo , {row['text']}"
    return {**row, "text": text, "file_label": row["label"], "triggered": row["id"] % 10 != 9}


def _clause(row: dict[str, Any]) -> dict[str, Any]:
    opener = ("when", "if", "that")[row["id"] // 3 % 3]
    text = f"{opener} one asks about it , {row['text'].lower()}"
    return {**row, "text": text, "file_label": 1, "triggered": True}


def _question(number: int) -> dict[str, Any]:
    noun, place = NOUNS[number // 3 % len(NOUNS)], number // 3
    context = f"House {place} stands on a hill. In it there is a {noun}. Nobody has moved it."
    question = f"Question {number % 3}: what is in house {place}?"
    return {"id": f"q{number}", "context": context, "question": question, "answer": noun}


def _chore(number: int) -> dict[str, Any]:
    noun = NOUNS[number % len(NOUNS)]
    return {"instruction": f"Say what a {noun} is.", "input": "", "output": f"A thing, {number}."}


def _prompt(number: int) -> dict[str, Any]:
    return {"row": number, "prompt": f"Count to {number}.\n\nBriefly.", "completion": str(number)}
