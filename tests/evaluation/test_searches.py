"""Scores of trigger searches from a scan's JSON, put beside the adapters of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.toys import BASE, toy_zoo, write_toy

from peftguard.errors import MalformedFile, SettingsError, TargetNotFound
from peftguard.evaluation.searches import read_searches, with_searches
from peftguard.evaluation.zoo import Zoo, read_zoo
from peftguard.results import Label, Result, Scan, Tool, TriggerEvidence, Verdict
from peftguard.trigger.report import TriggerScores

SCORES = TriggerScores(lone=1, word=2, form=3)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return read_zoo(write_toy(tmp_path_factory.mktemp("toy"), toy_zoo(3, 2)))


def scan_of(zoo: Zoo, base: str = BASE, **more: object) -> Scan:
    """The first two adapters were searched, the second without a score."""
    results = []
    for entry, scores in zip(zoo.entries, (SCORES, None), strict=False):
        fields = {"base": base, "scores": scores, "seconds": 1.0, **more}
        results.append(
            Result(
                target=entry.row.path,
                sha256=entry.row.sha256,
                adapter=None,
                verdict=Verdict(label=Label.UNKNOWN, reasons=["a test"]),
                findings=[],
                timing_s=0.0,
                trigger=TriggerEvidence.model_validate(fields),
            )
        )
    return Scan(tool=Tool(version="0"), results=results)


def write(path: Path, scan: Scan) -> Path:
    path.write_text(scan.model_dump_json())
    return path


def test_scores_go_by_the_weights(zoo: Zoo, tmp_path: Path) -> None:
    searches = read_searches(write(tmp_path / "scan.json", scan_of(zoo)))
    found = [entry.weights.searched for entry in with_searches(zoo, searches).entries]
    assert found == [SCORES, None, None, None, None]


def test_a_search_on_another_base_is_none(zoo: Zoo, tmp_path: Path) -> None:
    searches = read_searches(write(tmp_path / "scan.json", scan_of(zoo, "org/other")))
    with pytest.raises(SettingsError, match=f"searched on org/other, .* name {BASE}"):
        with_searches(zoo, searches)


def test_searches_of_other_adapters_are_of_no_use(zoo: Zoo, tmp_path: Path) -> None:
    scan = scan_of(zoo)
    for place, result in enumerate(scan.results):
        result.sha256 = f"{place:064}"
    searches = read_searches(write(tmp_path / "scan.json", scan))
    with pytest.raises(SettingsError, match=r"scan\.json: .* 2 searches there, 5 adapters here"):
        with_searches(zoo, searches)


def test_other_files_are_refused_plainly(zoo: Zoo, tmp_path: Path) -> None:
    for missing in (tmp_path / "none.json", tmp_path):
        with pytest.raises(TargetNotFound, match="cannot be read"):
            read_searches(missing)
    path = tmp_path / "scan.json"
    for text in ("", "{", "[]", json.dumps({"results": 3})):
        path.write_text(text)
        with pytest.raises(MalformedFile, match=r"scan\.json.*no JSON of a scan"):
            read_searches(path)
    path.write_text(json.dumps(scan_of(zoo).model_dump(mode="json") | {"\x1b[31m" + "x" * 9999: 1}))
    with pytest.raises(MalformedFile, match="no JSON of a scan") as caught:
        read_searches(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300 + len(str(path))


def test_scans_whose_searches_cannot_be_used(zoo: Zoo, tmp_path: Path) -> None:
    path = write(tmp_path / "scan.json", scan_of(zoo, search_version=99))
    with pytest.raises(MalformedFile, match="another version"):
        read_searches(path)
    path.write_text(scan_of(zoo).model_dump_json().replace('"word":2.0', '"word":1e999'))
    with pytest.raises(MalformedFile, match="scores that are no numbers"):
        read_searches(path)
    bare = scan_of(zoo)
    for result in bare.results:
        result.trigger = None
    with pytest.raises(MalformedFile, match="a scan with --base; found 2 results without a search"):
        read_searches(write(path, bare))
