"""Benchmarks that cannot be evaluated honestly are refused, each by one clear error."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftguard.errors import MalformedFile, PeftGuardError, TargetNotFound
from peftguard.evaluation.zoo import connected, read_wild, read_zoo
from peftguard.padbench.manifest import FILE_NAME, Row, read_manifest, write_manifest

Own = Callable[[list[Row]], Path]


def row(path: str, label: Any = "benign", **more: Any) -> Row:
    return Row(path=path, label=label, **more)


BENIGN, BAD = row("a", split="train"), row("b", "backdoored", split="test")


def test_a_benchmark_is_read_whole(written: Path) -> None:
    seen: list[int] = []
    zoo = read_zoo(written, lambda done, total, name: seen.append(done))
    assert seen == list(range(96))
    assert zoo.has_splits
    assert (len(zoo.members("train")), len(zoo.members("test")), zoo.labels().sum()) == (64, 32, 48)
    assert {entry.weights.base_model for entry in zoo.entries} == {"toy"}
    assert zoo.name == "toy-zoo"
    assert read_zoo(written / FILE_NAME).manifest_sha256 == zoo.manifest_sha256


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([BENIGN, row("b")], "one class only; expected benign and backdoored rows; found benign"),
        ([BENIGN, row("b", "dud")], "one class only"),
        ([], "found no rows"),
        ([BENIGN, BAD, row("c")], "some rows have a split and some have none"),
        ([BENIGN, BAD, row("a", split="train")], "2 rows have this path"),
        (
            [row("a", split="train", sha256="5"), row("b", "backdoored", split="test", sha256="5")],
            "5: the same sha256 stands in several splits",
        ),
        (
            [
                row("a", split="train", data_hash="d"),
                row("b", "backdoored", split="test", data_hash="d"),
            ],
            "the same data_hash stands in several splits",
        ),
        (
            [
                row("a", split="train", split_group="g"),
                row("b", "backdoored", split="test", split_group="g"),
            ],
            "the same split_group stands in several splits",
        ),
        ([row("a", sha256="5"), row("b", "backdoored", sha256="5")], "two labels"),
        ([BENIGN, BAD, row("c", split="wild")], "reserved"),
        ([BENIGN, BAD], "names an adapter that is not there"),
        ([row("../a"), row("b", "backdoored")], "leads out of the benchmark"),
    ],
)
def test_a_hostile_manifest_is_one_error(own: Own, rows: list[Row], said: str) -> None:
    with pytest.raises(PeftGuardError, match=r"^[^\n]+$") as error:
        read_zoo(own(rows))
    assert said in str(error.value)


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    """A benchmark of four adapters that a test may break."""
    root = tmp_path / "copied"
    rows = read_manifest(written)[:4]
    for one in rows:
        shutil.copytree(written / one.path, root / one.path)
    write_manifest(root / FILE_NAME, rows)
    return root


def test_other_weights_than_the_manifest_says(copied: Path) -> None:
    shutil.copy(copied / "a001/adapter_model.safetensors", copied / "a000")
    with pytest.raises(MalformedFile, match="a000: sha256: not the weights of the manifest"):
        read_zoo(copied)


def test_missing_and_broken_files(copied: Path) -> None:
    weights = copied / "a002" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:50])
    with pytest.raises(PeftGuardError, match="a002"):
        read_zoo(copied)
    weights.unlink()
    with pytest.raises(TargetNotFound, match="a002"):
        read_zoo(copied)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(TargetNotFound, match="no manifest"):
        read_zoo(tmp_path)


def test_the_wild_stands_apart(written: Path, copied: Path) -> None:
    (copied / "a003" / "adapter_model.safetensors").write_bytes(b"broken")
    zoo = read_zoo(written)
    both = read_wild(zoo, copied)
    assert len(both.wild()) == 3
    assert both.members() == zoo.members()
    assert [Path(target).name for target, _ in both.unread] == ["a003"]


def test_members_that_share_a_key_are_one() -> None:
    keys = [[("a", 1)], [("a", 2), ("b", 1)], [("b", 1)], [("b", None)], [("b", None)], []]
    groups = connected(keys)
    assert groups[1] == groups[2]
    assert len(np.unique(groups)) == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "backdoored"}, "the same weights have two labels"),
        ({"split": "test"}, "the same sha256 stands in several splits"),
    ],
)
def test_a_copy_is_found_without_hashes_in_the_manifest(
    copied: Path, change: dict[str, str], said: str
) -> None:
    rows = [one.model_copy(update={"sha256": None}) for one in read_manifest(copied)]
    write_manifest(copied / FILE_NAME, rows)
    hashes = [entry.row.sha256 for entry in read_zoo(copied).entries]
    assert len(set(hashes) - {None}) == 4
    shutil.copy(copied / "a000/adapter_model.safetensors", copied / "a002")
    groups = read_zoo(copied).groups(split_groups=False)
    assert groups[0] == groups[2]
    rows[2] = Row.model_validate(rows[2].model_dump() | {"split_group": None} | change)
    write_manifest(copied / FILE_NAME, rows)
    with pytest.raises(MalformedFile, match=said):
        read_zoo(copied)
