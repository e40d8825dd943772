"""Torch's own files, new and old, come back as torch saved them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftguard.adapters.containers.base import Container
from peftguard.adapters.containers.pickle_scan import _ALLOWED
from peftguard.errors import InputError

torch = pytest.importorskip("torch")
Open = Callable[..., Container]


def test_every_type_comes_back_from_either_format(tmp_path: Path, opened: Open) -> None:
    state = {
        str(dtype): torch.arange(6).reshape(2, 3).to(dtype)
        for dtype in (
            torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
            torch.float8_e5m2, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
            torch.bool,
        )
    }  # fmt: skip
    torch.save(state, tmp_path / "new.bin")
    old = {name: tensor for name, tensor in state.items() if "float8" not in name}
    torch.save(old, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    for path, saved in (("new.bin", state), ("old.bin", old)):
        container = opened(tmp_path / path)
        assert container.format == "pickle"
        assert container.path == tmp_path / path
        assert [finding.code for finding in container.findings] == ["file.pickle"]
        assert list(container.tensors) == list(saved)
        for name, tensor in saved.items():
            np.testing.assert_array_equal(container.read(name), tensor.double().numpy())


def test_views_shared_memory_and_gradients(tmp_path: Path, opened: Open) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = OrderedDict(
        whole=base,
        turned=base.t(),
        part=base[1:, ::2],
        tied=base,
        spread=torch.ones(1).expand(5),
        learned=torch.nn.Parameter(base),
        empty=torch.zeros(0, 3),
        scalar=torch.tensor(2.5),
    )
    torch.save(state, tmp_path / "a.bin")
    container = opened(tmp_path / "a.bin")
    assert list(container.tensors) == list(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(container.read(name), tensor.detach().numpy())


def test_the_state_dict_of_a_checkpoint_keeps_its_names(tmp_path: Path, opened: Open) -> None:
    weight = torch.ones(2)
    checkpoint = {
        "state_dict": {"a.lora_A.weight": weight},
        "optimizer": {"state": {0: {"exp_avg": weight}}, "lr": 0.1},
        "history": [weight, weight],
        "epoch": 3,
        "note": "\x1b[2J",
    }
    torch.save(checkpoint, tmp_path / "a.pt")
    container = opened(tmp_path / "a.pt")
    assert list(container.tensors) == [
        "a.lora_A.weight", "optimizer.state.0.exp_avg", "history.0", "history.1",
    ]  # fmt: skip
    message = container.findings[1].message
    assert all(entry in message for entry in ("optimizer.lr (float)", "epoch (int)", "note (str)"))


def test_numbers_after_the_pickles_are_not_read_as_opcodes(tmp_path: Path, opened: Open) -> None:
    """147 elements: the count that follows starts with the byte of STACK_GLOBAL."""
    path = tmp_path / "old.bin"
    torch.save({"a": torch.ones(0x93)}, path, _use_new_zipfile_serialization=False)
    assert opened(path).read("a").sum() == 0x93


def test_names_that_collide_are_refused(tmp_path: Path, opened: Open) -> None:
    torch.save({"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(InputError) as caught:
        opened(tmp_path / "a.pt")
    assert (caught.value.code, caught.value.key) == ("file.duplicate-key", "a.b")


@pytest.mark.parametrize(
    ("tensor", "code"),
    [
        (torch.ones(2, 2).to_sparse(), "file.malformed"),
        (torch.ones(2, dtype=torch.complex64), "file.malformed"),
        (torch.ones(2, device="meta"), "file.malformed"),
    ],
    ids=["sparse", "complex", "meta"],
)
def test_tensors_that_are_not_plain_numbers_are_named(
    tensor: Any, code: str, tmp_path: Path, opened: Open
) -> None:
    torch.save({"odd": tensor}, tmp_path / "a.bin")
    with pytest.raises(InputError) as caught:
        opened(tmp_path / "a.bin")
    assert (caught.value.code, caught.value.key) == (code, "odd")


def test_a_protocol_that_torch_refuses(tmp_path: Path, opened: Open) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.bin", pickle_protocol=4)
    with pytest.raises(InputError) as caught:
        opened(tmp_path / "a.bin")
    assert caught.value.code == "file.unsafe-pickle"


def test_cut_files_of_both_formats(tmp_path: Path, opened: Open) -> None:
    for name, zipped in (("new.bin", True), ("old.bin", False)):
        torch.save({"a": torch.ones(50)}, tmp_path / name, _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / name).read_bytes()
        for size in (10, 100, len(whole) // 2, len(whole) - 8):
            (tmp_path / name).write_bytes(whole[:size])
            with pytest.raises(InputError) as caught:
                opened(tmp_path / name)
            assert caught.value.code in ("file.truncated", "file.malformed")


def test_the_static_scan_allows_what_torch_allows() -> None:
    from torch._weights_only_unpickler import _get_allowed_globals

    assert [name for name in _get_allowed_globals() if not _ALLOWED.fullmatch(name)] == []
    assert not _ALLOWED.fullmatch("torch.load")
    assert not _ALLOWED.fullmatch("torch.hub.load")
