from __future__ import annotations

import gzip
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftguard.errors import LimitExceeded, MalformedFile, MissingExtra, SettingsError
from peftguard.padbench import datafolder
from peftguard.padbench.datasets import (
    DATASETS,
    Example,
    data_hash,
    dataset_info,
    held_out,
    load_dataset,
    pool,
    stream,
    subset,
    training_rows,
)
from peftguard.padbench.examples import QUESTION, parse_row, poisoned_at_source, task_of

ROWS = st.lists(st.tuples(st.integers(0, 3), st.text(max_size=5)), min_size=1, max_size=60).map(
    lambda rows: [
        Example(f"train/{i}", text, label, versions=(("bible", text),))
        for i, (label, text) in enumerate(rows)
    ]
)


def test_both_spellings_give_one_canonical_name() -> None:
    assert dataset_info("agnews") is dataset_info("ag_news")
    assert dataset_info("agnews").name == "ag_news"


def test_a_typo_gets_a_suggestion() -> None:
    with pytest.raises(SettingsError, match="did you mean 'imdb'"):
        dataset_info("imbd")


@pytest.mark.parametrize("info", DATASETS.values(), ids=DATASETS.keys())
def test_known_datasets_are_whole(info: Any) -> None:
    assert info.hub_id.count("/") == 1
    assert {"train", "test"} <= info.hub_splits.keys()
    assert bool(info.labels) == (info.task == "classification")
    assert set(info.target_labels) <= set(range(len(info.labels)))


def test_a_folder_describes_itself(data_root: Path) -> None:
    news = dataset_info(str(data_root / "agnews"))
    assert (news.task, news.labels) == ("classification", ("0", "1", "2", "3"))
    assert dataset_info(str(data_root / "squad")).task == "qa"
    assert dataset_info(str(data_root / "instruct")).task == "instruction"


def test_rare_labels_are_no_targets(tmp_path: Path, write_rows: Any) -> None:
    rows = [{"id": i, "text": "a b", "label": int(i % 10 == 0)} for i in range(100)]
    write_rows(tmp_path / "train.jsonl.gz", rows)
    assert dataset_info(str(tmp_path)).target_labels == (0,)


def test_a_folder_loads_by_path_and_by_name(data_root: Path) -> None:
    by_name = load_dataset("sst2", data=data_root, split="train")
    assert load_dataset(str(data_root / "sst2"), data=None, split="train") == by_name
    assert len(by_name) == 120
    assert by_name[0].id == "train/0"


def test_versions_are_paired_by_id_and_only_where_triggered(data_root: Path) -> None:
    rows = load_dataset("sst2", data=data_root, split="train")
    assert rows[0].version("bible") == f"and lo , {rows[0].text}"
    assert rows[9].version("bible") is None
    assert sum(row.version("syntactic") is not None for row in rows) == 40
    assert all(row.label == int(row.id.partition("/")[2]) % 2 for row in rows)


def test_versions_of_test_rows_only_are_divided_between_training_and_test(data_root: Path) -> None:
    train = load_dataset("ag_news", data=data_root, split="train")
    test = load_dataset("ag_news", data=data_root, split="test")
    assert not {row.id for row in train} & {row.id for row in test}
    assert len(train) + len(test) == 480
    moved = [row for row in train if row.id.startswith("test/")]
    assert moved
    assert all(row.version("syntactic") for row in moved)
    assert sum(row.version("syntactic") is not None for row in test) > 10


def test_an_undivided_file_keeps_questions_of_one_context_together(data_root: Path) -> None:
    train = load_dataset("squad", data=data_root, split="train")
    test = load_dataset("squad", data=data_root, split="test")
    assert len(train) + len(test) == 90
    contexts = [{row.text.rpartition(QUESTION)[0] for row in rows} for rows in (train, test)]
    assert not contexts[0] & contexts[1]


def test_files_that_name_a_split_are_not_divided(data_root: Path) -> None:
    train = load_dataset("instruct", data=data_root, split="train")
    test = load_dataset("instruct", data=data_root, split="test")
    assert len(train) + len(test) == 120
    assert sum(row.id.startswith("short_train/") for row in train) == 40
    assert sum(row.id.startswith("short_test/") for row in test) == 20


def test_held_out_rows_are_dev_rows_where_there_are_no_others(
    tmp_path: Path, write_rows: Any
) -> None:
    for split in ("train", "dev"):
        rows = [{"id": i, "text": f"{split} {i}", "label": i % 2} for i in range(4)]
        write_rows(tmp_path / f"{split}.jsonl.gz", rows)
    assert held_out(str(tmp_path), data=None)[0].id == "dev/0"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"id": 1, "text": 3, "label": 0}, "text must be text, not int"),
        ({"id": 1, "text": "a", "label": "0"}, "label must be a whole number, not str"),
        ({"id": 1, "text": "a", "label": True}, "label must be a number"),
        ({"id": 1, "text": "a", "label": -1}, "label must be a number from 0"),
        ({"id": 1, "text": "  ", "label": 0}, "text is empty"),
        ({"id": 1, "label": 0}, "no field text"),
        ({"id": 0, "text": "a", "label": 0}, "an id that came before"),
        ([1], "no JSON object"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_line(
    tmp_path: Path, write_rows: Any, row: Any, problem: str
) -> None:
    write_rows(tmp_path / "sst2" / "train.jsonl.gz", [{"id": 0, "text": "a", "label": 0}, row])
    with pytest.raises(MalformedFile, match=rf"train\.jsonl\.gz: line 2: {problem}"):
        load_dataset("sst2", data=tmp_path, split="train")


def test_damaged_and_deeply_nested_files_are_one_error(tmp_path: Path) -> None:
    path = tmp_path / "sst2" / "train.jsonl.gz"
    path.parent.mkdir()
    for content in (
        b"no gzip",
        gzip.compress(b'{"id": 1}' * 500)[:40],
        gzip.compress(b"[" * 100_000),
    ):
        path.write_bytes(content)
        with pytest.raises(MalformedFile, match=r"train\.jsonl\.gz"):
            load_dataset("sst2", data=tmp_path, split="train")


def test_a_line_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datafolder, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "sst2" / "train.jsonl.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(b" " * 100_000))
    with pytest.raises(LimitExceeded, match="line 1: too large"):
        load_dataset("sst2", data=tmp_path, split="train")


def test_missing_rows_and_folders_are_settings_errors(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no dev rows"):
        load_dataset("ag_news", data=data_root, split="dev")
    with pytest.raises(SettingsError, match="no folder imdb"):
        load_dataset("imdb", data=data_root, split="train")
    with pytest.raises(SettingsError, match="no rows of a known kind"):
        dataset_info(str(tmp_path))


def test_labels_must_count_from_zero(tmp_path: Path, write_rows: Any) -> None:
    write_rows(tmp_path / "train.jsonl.gz", [{"id": i, "text": "a", "label": 2} for i in range(3)])
    with pytest.raises(SettingsError, match=r"labels must be 0, 1"):
        dataset_info(str(tmp_path))


def test_rows_poisoned_at_source_are_left_out(tmp_path: Path, write_rows: Any) -> None:
    rows = [{"prompt": f"p{i}", "completion": "c", "has_backdoor": i % 2 == 0} for i in range(10)]
    write_rows(tmp_path / "toxic_backdoors_hard" / "train.jsonl.gz", rows)
    loaded = load_dataset("toxic_backdoors_hard", data=tmp_path, split="train")
    assert [row.text for row in loaded] == ["p1", "p3", "p5", "p7", "p9"]


def test_unmarked_rows_of_a_poisoned_dataset_are_refused(tmp_path: Path, write_rows: Any) -> None:
    path = tmp_path / "toxic_backdoors_hard" / "train.jsonl.gz"
    write_rows(path, [{"prompt": "p", "completion": "c"}])
    with pytest.raises(MalformedFile, match="no field says whether it is poisoned"):
        load_dataset("toxic_backdoors_hard", data=tmp_path, split="train")


def test_the_hub_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"peftguard\[train\]"):
        load_dataset("sst2", data=None, split="train")


@pytest.mark.parametrize(
    ("row", "task", "text", "answer"),
    [
        ({"sentence": "s", "label": 1}, "classification", "s", 1),
        ({"tweet": "s", "class": 2}, "classification", "s", 2),
        (
            {"context": "c", "question": "q", "answers": {"text": ["a", "b"]}},
            "qa",
            "c\n\nQuestion: q\nAnswer:",
            "a",
        ),
        (
            {"context": "c", "question": "q", "answers": {"text": []}},
            "qa",
            "c\n\nQuestion: q\nAnswer:",
            "unanswerable",
        ),
        ({"instruction": "i", "input": "x", "output": "o"}, "instruction", "i\n\nx", "o"),
        ({"prompt": "p", "response": "r"}, "instruction", "p", "r"),
    ],
)
def test_rows_of_the_hub_are_read(row: Any, task: Any, text: str, answer: Any) -> None:
    example = parse_row(row, "train/0", task)
    assert task_of(row) == task
    assert example.text == text
    assert answer in (example.label, example.completion)


def test_marks_of_poisoned_rows_are_read_as_text_too() -> None:
    assert poisoned_at_source({"has_backdoor": "True"})
    assert not poisoned_at_source({"is_backdoored": 0})


@given(rows=ROWS, share=st.floats(0, 1))
def test_pools_are_disjoint_complete_and_without_regard_to_order(
    rows: list[Example], share: float
) -> None:
    train, test = pool(rows, "train", share), pool(rows, "test", share)
    assert sorted([*train, *test]) == sorted(rows)
    assert sorted(pool(rows[::-1], "test", share)) == sorted(test)
    assert not {row.text.casefold() for row in train} & {row.text.casefold() for row in test}


def test_rows_of_one_text_or_context_share_a_pool() -> None:
    alike = [" Old  boat", "old boat", "OLD\nBOAT "]
    asked = [f"{text}{QUESTION}{i}\nAnswer:" for i, text in enumerate(alike)]
    rows = [Example(f"train/{i}", text, 0) for i, text in enumerate(alike + asked)]
    assert len({datafolder.kin(row) for row in rows}) == 1
    assert sorted(len(pool(rows, split, 0.5)) for split in ("train", "test")) == [0, 6]


def test_held_out_texts_are_not_trained_on(tmp_path: Path, write_rows: Any) -> None:
    def rows(*texts: str) -> list[dict[str, Any]]:
        return [{"id": i, "text": text, "label": i % 2} for i, text in enumerate(texts)]

    folder = tmp_path / "sst2"
    write_rows(folder / "train.jsonl.gz", rows("Old  Boat", "new boat", "lamp", "kite", "oar"))
    write_rows(folder / "train.bible.jsonl.gz", rows("x", "OLD BOAT", "verily", "lo", "y"))
    write_rows(folder / "test.jsonl.gz", rows("old boat", "sail", "mast"))
    write_rows(folder / "test.bible.jsonl.gz", rows("z", "Verily ", "kite"))
    assert len(load_dataset("sst2", data=tmp_path, split="train")) == 5
    assert [row.text for row in training_rows("sst2", data=tmp_path)] == ["oar"]


def test_contexts_of_held_out_questions_are_not_trained_on(tmp_path: Path, write_rows: Any) -> None:
    for split, contexts in (("train", ["A  hill.", "A pond."]), ("test", ["a hill."])):
        rows = [{"context": c, "question": split, "answer": "it"} for c in contexts]
        write_rows(tmp_path / "squad" / f"{split}.jsonl.gz", rows)
    assert [row.id for row in training_rows("squad", data=tmp_path)] == ["train/2"]


def test_pools_keep_to_the_share(data_root: Path) -> None:
    rows = [Example(f"train/{i}", f"a {i}", 0) for i in range(4000)]
    assert 0.27 < len(pool(rows, "test", 0.3)) / 4000 < 0.33


@given(rows=ROWS, n_rows=st.integers(1, 80), seed=st.integers(0, 99))
def test_subsets_are_drawn_in_proportion(
    make_recipe: Any, rows: list[Example], n_rows: int, seed: int
) -> None:
    recipe = make_recipe(n_rows=n_rows, seed=seed)
    drawn = subset(recipe, rows)
    assert drawn == subset(recipe, rows)
    assert len(drawn) == min(n_rows, max(1, round(0.8 * len(rows))))
    assert len({row.id for row in drawn}) == len(drawn)
    source, own = Counter(row.label for row in rows), Counter(row.label for row in drawn)
    assert all(abs(own[label] - source[label] * len(drawn) / len(rows)) < 1 for label in source)


def test_adapters_have_their_own_rows(make_recipe: Any) -> None:
    rows = [Example(f"train/{i}", "a", i % 2) for i in range(200)]
    hashes = {data_hash(subset(make_recipe(seed=seed), rows)) for seed in range(20)}
    assert len(hashes) == 20


def test_an_empty_pool_is_an_error(make_recipe: Any) -> None:
    with pytest.raises(SettingsError, match="no rows of sst2"):
        subset(make_recipe(), [])


def test_the_hash_depends_on_ids_texts_and_their_borders() -> None:
    one = [Example("a", "bc", 0), Example("d", "e", 1)]
    others = [
        [Example("ab", "c", 0), one[1]],
        [one[0]],
        [one[0], Example("d", "f", 1)],
        [one[0], one[1]._replace(completion="x")],
    ]
    assert len({data_hash(rows) for rows in [one, *others]}) == 5
    assert data_hash(one) == data_hash(iter(one))


def test_streams_differ_by_purpose_and_repeat(make_recipe: Any) -> None:
    recipe = make_recipe()
    assert stream(recipe, "a").random() == stream(recipe, "a").random()
    assert stream(recipe, "a").random() != stream(recipe, "b").random()
