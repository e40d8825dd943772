"""A base model on the hub: what its words need comes by ranges, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file
from tests.hub_server import HubServer, environment, serving
from tests.toy_base import write_llama

from peftguard.errors import LimitExceeded, MalformedFile
from peftguard.features.vocabulary import read_vocabulary
from peftguard.trigger.hub_base import write_part

CHILD = """
import sys
import numpy as np
from peftguard.trigger.subject import base_folder
from peftguard.features.vocabulary import read_vocabulary
folder = base_folder(sys.argv[1], whole=False)
np.save(sys.argv[2], read_vocabulary(folder).alone)
"""
LAYERS = 2_000_000


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards, the larger part of both in layers that no word needs."""
    folder = write_llama(tmp_path_factory.mktemp("base"))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    norms = {name: tensors.pop(name) for name in list(tensors) if "norm" in name}
    for number, part in enumerate((tensors, norms)):
        name = f"model.layers.{number}.mlp.up_proj.weight"
        part[name] = np.ones(LAYERS, np.float32)
        save_file(part, folder / f"model-0000{number + 1}-of-00002.safetensors")
    return folder


@pytest.fixture(scope="module")
def hub(base: Path) -> Iterator[HubServer]:
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    broken = {**files, "model-00001-of-00002.safetensors": b"<html>" * 100}
    with serving({"org/base": files, "org/broken": broken}) as server:
        yield server


def words_of(
    hub: HubServer, name: str, home: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, name, str(home / "alone.npy")]
    return subprocess.run(
        command,
        env={**environment(hub.endpoint, home), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_words_are_those_of_the_whole_base(hub: HubServer, base: Path, tmp_path: Path) -> None:
    done = words_of(hub, "org/base", tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "alone.npy"), read_vocabulary(base).alone)
    shards = [count for name, count in hub.sent.items() if name.endswith(".safetensors")]
    assert len(shards) == 2
    assert sum(shards) < LAYERS
    hub.sent.clear()
    assert words_of(hub, "org/base", tmp_path).returncode == 0
    assert not any(name.endswith(".safetensors") for name in hub.sent)


def test_offline_words_are_those_that_were_brought(hub: HubServer, tmp_path: Path) -> None:
    assert words_of(hub, "org/base", tmp_path, HF_HUB_OFFLINE="1").returncode != 0
    assert words_of(hub, "org/base", tmp_path).returncode == 0
    hub.asked.clear()
    done = words_of(hub, "org/base", tmp_path, HF_HUB_OFFLINE="1")
    assert (done.returncode, hub.asked) == (0, []), done.stderr


def test_what_is_no_base_is_one_error(hub: HubServer, tmp_path: Path) -> None:
    done = words_of(hub, "org/broken", tmp_path)
    assert "model-00001-of-00002.safetensors" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("peftguard/bases/*"))


def test_a_mirror_that_sends_all_where_a_part_was_asked_for_is_one_error(
    hub: HubServer, base: Path, tmp_path: Path
) -> None:
    shard = base / "model-00001-of-00002.safetensors"
    hub.ranges = False
    try:
        done = words_of(hub, "org/base", tmp_path)
    finally:
        hub.ranges = True
    last = done.stderr.splitlines()[-1]
    assert f"{shard.name}: the hub does not give parts of it" in last
    assert f"expected 8 bytes; found {shard.stat().st_size} (status 200)" in last


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\xff" * 64, LimitExceeded),
        (b"\x02" + b"\0" * 7 + b"[]", MalformedFile),
        (save({"a": np.ones(4, np.float32)})[:-4], MalformedFile),
    ],
)
def test_a_hostile_file_is_refused(tmp_path: Path, data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"x\.safetensors"):
        write_part(
            tmp_path / "x.safetensors", len(data), lambda start, count: data[start : start + count]
        )


def test_what_was_not_asked_for_is_a_hole(base: Path, tmp_path: Path) -> None:
    shard = base / "model-00001-of-00002.safetensors"
    data = shard.read_bytes()
    write_part(tmp_path / shard.name, len(data), lambda start, count: data[start : start + count])
    found, whole = load_file(tmp_path / shard.name), load_file(shard)
    for name, values in whole.items():
        kept = "embed" in name
        np.testing.assert_array_equal(found[name], values if kept else np.zeros_like(values))
