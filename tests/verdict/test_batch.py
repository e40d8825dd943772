"""Many adapters: one result each, in input order, whatever happens to one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peftguard import scan
from peftguard.errors import SettingsError
from peftguard.results import Label
from peftguard.settings import load_settings
from peftguard.verdict.batch import scan_targets


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_in_input_order(make_adapter: Any, tmp_path: Path, jobs: int) -> None:
    folders = [make_adapter(f"a{i}", seed=i) for i in range(3)]
    missing = tmp_path / "nothing-here"
    (folders[1] / "adapter_model.safetensors").write_bytes(b"<html>")
    targets = [folders[2], missing, folders[0], folders[1]]
    report = scan(*targets, jobs=jobs, cache=False, offline=True)
    assert [result.target for result in report.results] == [str(target) for target in targets]
    assert [result.adapter is not None for result in report.results] == [True, False, True, False]
    assert {result.verdict.label for result in report.results} == {Label.UNKNOWN}


def test_a_tree_gives_one_result_an_adapter(make_adapter: Any, tmp_path: Path) -> None:
    for name in ("run", "run/checkpoint-10", "run/checkpoint-9", "other"):
        make_adapter(name)
    targets = [result.target for result in scan(tmp_path, cache=False).results]
    assert targets == [
        str(tmp_path / name) for name in ("other", "run", "run/checkpoint-9", "run/checkpoint-10")
    ]


def test_progress_counts_every_place(make_adapter: Any) -> None:
    seen: list[tuple[int, int, str]] = []
    folders = [str(make_adapter(name)) for name in ("a", "b")]
    scan_targets(folders, load_settings(cache=False), lambda *state: seen.append(state))
    assert seen == [(0, 2, folders[0]), (1, 2, folders[1]), (2, 2, "")]


def test_a_detector_that_is_not_installed(make_adapter: Any) -> None:
    with pytest.raises(SettingsError, match="no detector called 'nope'"):
        scan(make_adapter(), detectors=["nope"])
