"""Whole scans of the hostile corpus: one valid result each, nothing run, never clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.hostile.base import MARKER, HostileFile
from tests.hostile.build import hostile_files

from peftguard import scan
from peftguard.reports import Format, render
from peftguard.reports.json_report import schema
from peftguard.results import Label

FILES = hostile_files()


@pytest.mark.parametrize("hostile", FILES.values(), ids=FILES.keys())
def test_a_hostile_file_is_one_result(hostile: HostileFile, tmp_path: Path) -> None:
    if hostile.needs is not None:
        pytest.importorskip(hostile.needs)
    path = tmp_path / hostile.file_name
    hostile.write(path)
    report = scan(path, cache=False, limits={"max_seconds": 60})
    (result,) = report.results
    jsonschema.validate(json.loads(render(report, Format.JSON)), schema())
    codes = [finding.code for finding in result.findings]
    assert hostile.code in codes
    assert "error.internal" not in codes
    expected = {Label.BACKDOORED} if "file.executes-code" in codes else {Label.UNKNOWN}
    assert result.verdict.label in expected
    assert not (tmp_path / MARKER).exists()
    assert not Path(MARKER).exists()


@pytest.mark.parametrize("fmt", [Format.TEXT, Format.SARIF, Format.HTML])
def test_all_of_them_in_one_report(fmt: Format, tmp_path: Path) -> None:
    paths: list[Any] = []
    for name, hostile in list(FILES.items())[:20]:
        path = tmp_path / name / hostile.file_name
        path.parent.mkdir()
        hostile.write(path)
        paths.append(path)
    report = scan(*paths, cache=False, limits={"max_seconds": 60})
    assert [result.target for result in report.results] == [str(path) for path in paths]
    assert len(render(report, fmt)) > 1000
