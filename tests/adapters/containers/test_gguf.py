"""GGUF against the writer of the gguf package."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.hostile.ggufs import gguf, gguf_tensor

from peftguard.adapters.containers.base import Container
from peftguard.errors import MissingExtra, PeftGuardError

Open = Callable[..., Container]
Attempt = Callable[[Path], Container | PeftGuardError]


def write(path: Path) -> dict[str, np.ndarray]:
    """An adapter as llama.cpp's converter writes it; returns what must be read."""
    package = pytest.importorskip("gguf")
    random = np.random.default_rng(0)
    writer = package.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 16.0)
    writer.add_array("adapter.alora.invocation_tokens", [1, 2, 3])
    writer.add_array("general.tags", ["a", "b"])
    writer.add_bool("adapter.odd", True)
    values = random.normal(size=(6, 64)).astype(np.float32)
    expected = {}
    for kind in ("F32", "F16", "BF16", "Q8_0", "Q4_0"):
        quantisation = package.GGMLQuantizationType[kind]
        stored = package.quants.quantize(values, quantisation)
        writer.add_tensor(f"{kind}.lora_a", stored, raw_dtype=quantisation)
        expected[f"{kind}.lora_a"] = package.quants.dequantize(stored, quantisation)
    writer.add_tensor("ids", np.arange(5, dtype=np.int32))
    expected["ids"] = np.arange(5, dtype=np.int32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def test_tensors_come_back_row_major(tmp_path: Path, opened: Open) -> None:
    expected = write(tmp_path / "a.gguf")
    container = opened(tmp_path / "a.gguf")
    assert container.format == "gguf"
    assert list(container.tensors) == list(expected)
    for name, array in expected.items():
        read = container.read(name)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)
    assert container.tensors["Q8_0.lora_a"].shape == (6, 64)
    assert container.tensors["Q8_0.lora_a"].n_bytes == 6 * 2 * 34


def test_key_values_become_text(tmp_path: Path, opened: Open) -> None:
    write(tmp_path / "a.gguf")
    metadata = opened(tmp_path / "a.gguf").metadata
    assert metadata["general.type"] == "adapter"
    assert float(metadata["adapter.lora.alpha"]) == 16.0
    assert metadata["adapter.alora.invocation_tokens"] == "[1, 2, 3]"
    assert json.loads(metadata["general.tags"]) == ["a", "b"]
    assert metadata["adapter.odd"] == "true"


def test_only_quantised_tensors_need_the_package(
    tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gguf" else find(name)
    )
    data = np.arange(8, dtype="<f4").tobytes()
    (tmp_path / "plain.gguf").write_bytes(gguf(gguf_tensor("a"), n_tensors=1, data=data))
    (tmp_path / "q8.gguf").write_bytes(
        gguf(gguf_tensor("a", (32,), kind=8), n_tensors=1, data=b"\0" * 64)
    )
    np.testing.assert_array_equal(opened(tmp_path / "plain.gguf").read("a"), np.arange(8))
    with pytest.raises(MissingExtra, match=r"peftguard\[gguf\]"):
        opened(tmp_path / "q8.gguf")


@given(data=st.data())
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_gives_one_of_our_errors(
    data: st.DataObject, tmp_path: Path, attempt: Attempt
) -> None:
    path = tmp_path / "damaged.gguf"
    if not (tmp_path / "whole.gguf").exists():
        write(tmp_path / "whole.gguf")
    file = bytearray((tmp_path / "whole.gguf").read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        file[data.draw(st.integers(4, 900))] = data.draw(st.integers(0, 255))
    path.write_bytes(file[: data.draw(st.integers(4, len(file)))])
    container = attempt(path)
    if isinstance(container, PeftGuardError):
        assert str(container).isprintable()
        return
    with np.errstate(all="ignore"):
        shapes = {name: container.read(name).shape for name in container.tensors}
    assert shapes == {name: info.shape for name, info in container.tensors.items()}
    container.close()
