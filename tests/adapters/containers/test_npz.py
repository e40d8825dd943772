"""NumPy archives against numpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.hostile.archives import npy, npy_with_header, zip_of

from peftguard.adapters.containers.base import Container
from peftguard.errors import LimitExceeded, PeftGuardError
from peftguard.limits import Limits

Open = Callable[..., Container]
Attempt = Callable[[Path], Container | PeftGuardError]


def test_arrays_come_back(tmp_path: Path, opened: Open) -> None:
    arrays = {
        "model.layers.0.lora_a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": np.array([0.5, -0.0], np.float16),
        "by_column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "scalar": np.array(3, np.int64),
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 2), np.float32),
    }
    np.savez(tmp_path / "adapters.npz", **arrays)
    container = opened(tmp_path / "adapters.npz")
    assert container.format == "npz"
    assert list(container.tensors) == list(arrays)
    for name, array in arrays.items():
        assert container.tensors[name].shape == array.shape
        np.testing.assert_array_equal(container.read(name), array)


def test_bfloat16_as_mlx_writes_it(tmp_path: Path, opened: Open) -> None:
    array = np.array([[1.5, -2.0]], ml_dtypes.bfloat16)
    header = "{'descr': '<V2', 'fortran_order': False, 'shape': (1, 2), }"
    member = npy_with_header(header, array.tobytes())
    (tmp_path / "a.npz").write_bytes(zip_of({"x.npy": member}))
    container = opened(tmp_path / "a.npz")
    assert container.tensors["x"].dtype == "BF16"
    np.testing.assert_array_equal(container.read("x"), [[1.5, -2.0]])


def test_arrays_are_counted(tmp_path: Path, opened: Open) -> None:
    np.savez(tmp_path / "a.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(LimitExceeded):
        opened(tmp_path / "a.npz", limits=Limits(max_tensors=1))


@given(data=st.data())
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_gives_one_of_our_errors(
    data: st.DataObject, tmp_path: Path, attempt: Attempt
) -> None:
    whole = zip_of({"a.npy": npy(np.arange(3.0)), "b.npy": npy(np.zeros((1, 2), np.float16))})
    file = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        file[data.draw(st.integers(4, len(file) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.npz"
    path.write_bytes(file)
    container = attempt(path)
    if isinstance(container, PeftGuardError):
        assert str(container).isprintable()
        return
    shapes = {name: container.read(name).shape for name in container.tensors}
    assert shapes == {name: info.shape for name, info in container.tensors.items()}
    container.close()
