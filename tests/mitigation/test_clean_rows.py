"""Clean rows from a folder or a file, and what is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.mitigation.conftest import Toy

from peftguard.errors import InputError, PeftGuardError, SettingsError
from peftguard.mitigation.clean_rows import TRAINED_ON, drawn, read_clean_rows
from peftguard.padbench.examples import Example


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return path


def test_a_folder_has_its_own_division(toy: Toy) -> None:
    rows = read_clean_rows(toy.data, 0)
    assert len(rows.held_out) == 40
    assert len(rows.training) <= 120
    assert not {row.text for row in rows.training} & {row.text for row in rows.held_out}
    assert read_clean_rows(toy.data, 0) == rows
    assert read_clean_rows(toy.data, 1) != rows


def test_a_file_is_divided(tmp_path: Path) -> None:
    told = [{"text": f"text number {n}", "label": n % 2} for n in range(200)]
    rows = read_clean_rows(write(tmp_path / "rows.jsonl", [*told, *told]), 0)
    assert len(rows.training) + len(rows.held_out) == 400
    assert 0.15 < len(rows.held_out) / 400 < 0.45
    assert not {row.text for row in rows.training} & {row.text for row in rows.held_out}
    assert {row.label for row in rows.training} == {0, 1}


def test_at_most_so_many_are_drawn() -> None:
    rows = [Example(str(n), str(n), 0) for n in range(2 * TRAINED_ON)]
    assert len(set(drawn(rows, TRAINED_ON, 0))) == TRAINED_ON


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "a", "label": "good"}], "line 1"),
        ([{"text": "a", "label": 0}, {"text": "", "label": 0}], "line 2"),
        ([{"text": "a", "label": 0}, [1]], "line 2"),
        ([{"a": 1}], "line 1"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, rows: list[object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_clean_rows(write(tmp_path / "rows.jsonl", rows), 0)


def test_too_few_rows_or_none(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="too few rows"):
        read_clean_rows(write(tmp_path / "rows.jsonl", [{"text": "a", "label": 0}]), 0)
    with pytest.raises(PeftGuardError):
        read_clean_rows(tmp_path / "nothing.jsonl", 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError):
        read_clean_rows(tmp_path / "empty", 0)
