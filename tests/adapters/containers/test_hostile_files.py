"""Every hostile file gives its own error, quickly, with nothing run and nothing left open."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from tests.hostile.base import MARKER, HostileFile
from tests.hostile.build import hostile_files, special_files
from tests.hostile.headers import safetensors
from tests.hostile.pickles import slow_pickle, torch_zip

from peftguard.adapters.containers import open_container
from peftguard.errors import InputError, LimitExceeded, MissingExtra, PeftGuardError
from peftguard.limits import Deadline, Limits

FILES = hostile_files()


def codes_of(path: Path, limits: Limits | None = None) -> list[str]:
    """Codes of the findings, or of the one error."""
    limits = limits or Limits()
    try:
        container = open_container((path,), limits, Deadline(limits.max_seconds))
    except PeftGuardError as error:
        return [error.code]
    for name in container.tensors:
        container.read(name)
    container.close()
    return [finding.code for finding in container.findings]


@pytest.mark.parametrize("hostile", FILES.values(), ids=FILES.keys())
def test_a_hostile_file_gets_its_code(hostile: HostileFile, tmp_path: Path) -> None:
    if hostile.needs is not None:
        pytest.importorskip(hostile.needs)
    path = tmp_path / hostile.file_name
    hostile.write(path)
    codes = codes_of(path)
    assert hostile.code in codes
    assert hostile.loads or codes == [hostile.code]
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("kind", special_files())
def test_what_is_no_file_is_refused_without_waiting(kind: str, tmp_path: Path) -> None:
    write, code = special_files()[kind]
    path = tmp_path / "adapter_model.safetensors"
    write(path)
    assert codes_of(path) == [code]


def test_the_evil_pickles_would_run(tmp_path: Path) -> None:
    """Otherwise their absence of effect would prove nothing."""
    import pickle

    for name in ("protocol-0", "protocol-2", "protocol-4", "eval", "memoised"):
        folder = tmp_path / name
        folder.mkdir()
        FILES[f"pickle-{name}"].write(folder / "adapter_model.bin")
        pickle.loads((folder / "adapter_model.bin").read_bytes())
        assert (folder / MARKER).exists()


def test_pickles_are_judged_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    evil, plain = tmp_path / "evil.bin", tmp_path / "plain.bin"
    FILES["pickle-eval-in-zip"].write(evil)
    plain.write_bytes(torch_zip())
    assert codes_of(evil) == ["file.executes-code"]
    with pytest.raises(MissingExtra, match=r"peftguard\[torch\]"):
        open_container((plain,), Limits(), Deadline(60))


def test_a_child_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "slow.bin"
    path.write_bytes(slow_pickle())
    with pytest.raises(LimitExceeded) as caught:
        open_container((path,), Limits(), Deadline(5))
    assert caught.value.key == "max_seconds"


def test_a_child_without_enough_memory_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "plain.bin"
    path.write_bytes(torch_zip(more={"archive/data/1": b"\0" * (1 << 20)}))
    open_container((path,), Limits(sandbox_bytes=64 << 20), Deadline(60)).close()
    FILES["pickle-eats-memory"].write(path)
    with pytest.raises(LimitExceeded, match="sandbox_bytes"):
        open_container((path,), Limits(sandbox_bytes=64 << 20), Deadline(60))


def test_a_torch_beside_the_adapter_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "torch.py").write_text(f"open({str(tmp_path / MARKER)!r}, 'w')")
    (tmp_path / "a.bin").write_bytes(torch_zip())
    monkeypatch.chdir(tmp_path)
    assert codes_of(Path("a.bin")) == ["file.pickle"]
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("name", ["million-tensors", "huge-header"])
def test_counts_are_limited_even_where_the_header_is_not(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    FILES[name].write(path)
    limits = Limits(max_header_bytes=1 << 30)
    expected = {"million-tensors": "file.limit-reached", "huge-header": "file.malformed"}
    assert codes_of(path, limits) == [expected[name]]


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert codes_of(path) == ["file.limit-reached"]


def test_names_are_shown_harmlessly(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors({"\x1b[2J\u202e" + "x" * 500: None}))
    with pytest.raises(InputError) as caught:
        open_container((path,), Limits(), Deadline(60))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_nothing_stays_open_or_behind(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    for name in ("overlap", "zip-overlap", "gguf-overlap", "npz-cut", "pickle-eval", "lfs-pointer"):
        FILES[name].write(tmp_path / FILES[name].file_name)
        codes_of(tmp_path / FILES[name].file_name)
    after = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    assert after == before


def test_an_expired_deadline_stops_opening_and_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    path.write_bytes(safetensors({"a": entry}, b"\0" * 4))
    with pytest.raises(LimitExceeded, match="ran out of time"):
        open_container((path,), Limits(), Deadline(0))
    deadline = Deadline(60)
    container = open_container((path,), Limits(), deadline)
    deadline._end = 0.0
    with pytest.raises(LimitExceeded, match="ran out of time"):
        container.read("a")
    container.close()
