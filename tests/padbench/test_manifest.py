"""The manifest: what is written is read, and a wrong line is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftguard.errors import MalformedFile, TargetNotFound
from peftguard.padbench.manifest import FILE_NAME, Row, read_manifest, write_manifest

ROWS = st.builds(
    Row,
    path=st.text(min_size=1, max_size=20),
    label=st.sampled_from(["benign", "backdoored", "dud"]),
    asr=st.none() | st.floats(0, 1),
    trigger=st.none() | st.lists(st.text(max_size=10), max_size=3),
    rank=st.none() | st.integers(1, 999),
    versions=st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROWS, max_size=6))
def test_round_trip(tmp_path: Path, rows: list[Row]) -> None:
    write_manifest(tmp_path / FILE_NAME, rows)
    assert read_manifest(tmp_path) == rows
    assert read_manifest(tmp_path / FILE_NAME) == rows
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"path": "a"}', "label"),
        ('{"path": "a", "label": "evil"}', "label"),
        ('{"path": "a", "label": "benign", "more": 1}', "more"),
        ("not json", "line 2"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / FILE_NAME
    path.write_text('{"path": "ok", "label": "benign"}\n' + line + "\n")
    with pytest.raises(MalformedFile) as error:
        read_manifest(path)
    assert said in str(error.value)
    assert "line 2" in str(error.value)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(TargetNotFound, match="no manifest"):
        read_manifest(tmp_path)
