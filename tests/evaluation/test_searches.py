"""Scores of trigger searches from a scan's JSON, put beside the adapters of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.toys import BASE, toy_zoo, write_toy

from peftguard.errors import MalformedFile, TargetNotFound
from peftguard.evaluation.searches import with_searches
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


def test_scores_go_by_the_weights(zoo: Zoo, tmp_path: Path) -> None:
    path = tmp_path / "scan.json"
    path.write_text(scan_of(zoo).model_dump_json())
    found = [entry.weights.searched for entry in with_searches(zoo, path).entries]
    assert found == [SCORES, None, None, None, None]


def test_a_search_on_another_base_is_none(zoo: Zoo, tmp_path: Path) -> None:
    path = tmp_path / "scan.json"
    path.write_text(scan_of(zoo, "org/other").model_dump_json())
    assert all(one.weights.searched is None for one in with_searches(zoo, path).entries)


def test_other_files_are_refused_plainly(zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(TargetNotFound, match="cannot be read"):
        with_searches(zoo, tmp_path / "none.json")
    path = tmp_path / "scan.json"
    for text in ("{", json.dumps({"results": 3})):
        path.write_text(text)
        with pytest.raises(MalformedFile, match=r"scan\.json.*no JSON of a scan"):
            with_searches(zoo, path)
    path.write_text(scan_of(zoo, search_version=99).model_dump_json())
    with pytest.raises(MalformedFile, match="another version"):
        with_searches(zoo, path)
