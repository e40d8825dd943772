"""A dataset in a folder: gzip JSON Lines, one file a split, attacked versions beside them.

    train.jsonl.gz  dev.jsonl.gz  test.jsonl.gz      {"id", "text", "label"}, or prompt rows
    train.<version>.jsonl.gz                         {"id", "text", "triggered"}: `id` of the row

`<anything>_train.jsonl.gz` is a split's file as well. A file that names no split is divided by
hash, equal texts and all questions about one context on the same side.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from peftguard.errors import LimitExceeded, MalformedFile, SettingsError
from peftguard.limits import MIB
from peftguard.padbench.examples import QUESTION, Example, parse_row, poisoned_at_source, task_of
from peftguard.padbench.recipe import Task

DataSplit = Literal["train", "dev", "test"]
SUFFIXES = (".jsonl.gz", ".jsonl")
MAX_LINE_BYTES = 4 * MIB
MAX_FILE_BYTES = 4096 * MIB
MAX_ROWS = 5_000_000
_HELD_OUT = 0.2
"""Share of an undivided file that is for testing."""
_MOVED = 0.5
"""Share of the test rows that are trained on where a version exists for the test rows only."""

Row = dict[str, Any]


def share_of(key: str) -> float:
    """A fixed number in [0, 1) for a key, to divide rows by without regard to their order."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big") / 2**56


def normalised(text: str) -> str:
    """A text without regard to case and white space."""
    return " ".join(text.casefold().split())


def kin(example: Example) -> str:
    """What rows that must stay together share: the context of questions, else the text."""
    return normalised(example.text.rpartition(QUESTION)[0] or example.text)


def read_folder(folder: Path, task: Task, split: DataSplit, *, marked: bool) -> list[Example]:
    """All rows of a split, with their attacked versions.

    Args:
        folder: the dataset.
        task: what its rows are for.
        split: which rows.
        marked: rows say whether they were poisoned at source; those that were are left out.

    Raises:
        SettingsError: there are no rows for this split.
        MalformedFile: a file cannot be read; the message names the line.
        LimitExceeded: a file or line is too large.
    """
    rows = _clean_rows(folder, task, split, marked)
    only_test = _versions(folder, "test").keys() - _versions(folder, "train").keys()
    if only_test and split != "dev":
        test = rows if split == "test" else _clean_rows(folder, task, "test", marked)
        kept, moved = _divide(test, only_test)
        rows = kept if split == "test" else rows + moved
    if not rows:
        raise SettingsError(f"{folder}: no {split} rows")
    return rows


def _clean_rows(folder: Path, task: Task, split: DataSplit, marked: bool) -> list[Example]:
    rows: list[Example] = []
    for path in _clean_files(folder):
        named = _split_of(path)
        if named in (None, split):
            examples = list(_examples(path, task, marked))
            rows += examples if named else [row for row in examples if _side(row) == split]
    found = _paraphrases(folder, split)
    return [row._replace(versions=tuple(found[row.id])) if row.id in found else row for row in rows]


def _divide(test: list[Example], versions: set[str]) -> tuple[list[Example], list[Example]]:
    """Test rows that are measured on, and those that are trained on for the sake of a version."""
    kept: list[Example] = []
    moved: list[Example] = []
    for row in test:
        has_one = any(name in versions for name, _ in row.versions)
        (moved if has_one and share_of(f"moved/{row.id}") < _MOVED else kept).append(row)
    return kept, moved


def _side(example: Example) -> DataSplit:
    return "test" if share_of(f"held out/{kin(example)}") < _HELD_OUT else "train"


def _examples(path: Path, task: Task, marked: bool) -> Iterator[Example]:
    seen: set[str] = set()
    for number, row in _lines(path):
        id_ = f"{_stem(path)}/{row.get('id', number)}"
        try:
            if marked and poisoned_at_source(row):
                continue
            example = parse_row(row, id_, task)
        except ValueError as error:
            raise MalformedFile(str(error), file=str(path), key=f"line {number}") from None
        if id_ in seen:
            raise MalformedFile("an id that came before", file=str(path), key=f"line {number}")
        seen.add(id_)
        if example.completion is None or example.completion.strip():
            yield example


def _paraphrases(folder: Path, split: DataSplit) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for version, path in _versions(folder, split).items():
        for number, row in _lines(path):
            text = row.get("text")
            if not isinstance(text, str):
                raise MalformedFile("no text", file=str(path), key=f"line {number}")
            if row.get("triggered", True) and row.get("id") is not None and text.strip():
                found[f"{split}/{row['id']}"].append((version, text))
    return found


def _versions(folder: Path, split: DataSplit) -> dict[str, Path]:
    parts = {path: _stem(path).partition(".") for path in _files(folder)}
    return {
        version: path for path, (stem, _, version) in parts.items() if stem == split and version
    }


def _clean_files(folder: Path) -> list[Path]:
    return [path for path in _files(folder) if "." not in _stem(path)]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIXES))


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def _split_of(path: Path) -> DataSplit | None:
    last = _stem(path).rpartition("_")[2]
    return cast(DataSplit, last) if last in ("train", "dev", "test") else None


def _lines(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        with _open(path) as file:
            yield from _parsed(file, path)
    except (OSError, EOFError, zlib.error) as error:
        raise MalformedFile(f"cannot be read: {error}", file=str(path)) from None


def _parsed(file: BinaryIO, path: Path) -> Iterator[tuple[int, Row]]:
    number = size = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number, size = number + 1, size + len(line)
        if len(line) > MAX_LINE_BYTES or size > MAX_FILE_BYTES or number > MAX_ROWS:
            raise LimitExceeded("too large for a dataset", file=str(path), key=f"line {number}")
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise MalformedFile("no JSON object", file=str(path), key=f"line {number}")
        yield number, row


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


@lru_cache(maxsize=64)
def infer_task(folder: Path) -> tuple[Task, tuple[int, ...]]:
    """The task of a folder's rows, and how many rows each label has; read once a process.

    Raises:
        SettingsError: there are no rows, their fields fit no task, or a label has none.
        MalformedFile: a file cannot be read.
    """
    first = next((row for path in _clean_files(folder) for _, row in _lines(path)), None)
    task = task_of(first) if first else None
    if first is None or task is None:
        raise SettingsError(
            f"{folder}: no rows of a known kind; expected *.jsonl.gz with text and label, "
            "with prompt and completion, or with context, question and answer"
        )
    if task != "classification":
        return task, ()
    counts: dict[int, int] = defaultdict(int)
    for path in _clean_files(folder):
        for example in _examples(path, task, marked=False):
            counts[cast(int, example.label)] += 1
    if sorted(counts) != list(range(len(counts))) or len(counts) < 2:
        raise SettingsError(f"{folder}: labels must be 0, 1, ...; found {sorted(counts)[:8]}")
    return task, tuple(counts[label] for label in sorted(counts))
