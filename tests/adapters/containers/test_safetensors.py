"""Safetensors against the library that defines them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save_file
from tests.hostile.headers import safetensors

from peftguard.adapters.containers.base import Container
from peftguard.adapters.containers.dtypes import WIDTH
from peftguard.errors import MalformedFile, PeftGuardError
from peftguard.limits import Limits

DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
SMALL_FLOATS = [name for name in DTYPES if name.startswith(("F8", "F16", "BF16"))]
Open = Callable[..., Container]
Attempt = Callable[[Path], Container | PeftGuardError]


def every_value(name: str) -> np.ndarray:
    """All bit patterns of a type of one or two bytes, else some values."""
    dtype = np.dtype(DTYPES[name])
    if name == "BOOL":
        return np.array([True, False])
    if dtype.itemsize <= 2:
        bits = np.arange(1 << 8 * dtype.itemsize, dtype=f"u{dtype.itemsize}")
        return bits.view(dtype)
    return np.array([0, 1, 100, 77], dtype)


def test_every_type_has_a_width_and_a_test() -> None:
    assert {name: np.dtype(dtype).itemsize for name, dtype in DTYPES.items()} == WIDTH


@pytest.mark.parametrize("name", DTYPES)
def test_every_type_comes_back(name: str, tmp_path: Path, opened: Open) -> None:
    values = every_value(name).reshape(2, -1)
    entry = {"dtype": name, "shape": values.shape, "data_offsets": [0, values.nbytes]}
    file = safetensors({"x": entry}, values.tobytes())
    assert dict(deserialize(file))["x"]["dtype"] == name
    (tmp_path / "a.safetensors").write_bytes(file)
    container = opened(tmp_path / "a.safetensors")
    assert container.tensors["x"].dtype == name
    read = container.read("x")
    expected = values.astype(np.float32) if name in SMALL_FLOATS else values
    assert read.dtype == expected.dtype
    np.testing.assert_array_equal(read, expected)


def test_what_torch_saves_comes_back(tmp_path: Path, opened: Open) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    dtypes += (torch.float8_e4m3fn, torch.float8_e5m2, torch.int32, torch.bool)
    saved = {str(dtype): torch.randn(3, 5).to(dtype) for dtype in dtypes}
    save_file(saved, tmp_path / "a.safetensors")
    container = opened(tmp_path / "a.safetensors")
    assert container.tensors.keys() == saved.keys()
    for name, tensor in saved.items():
        np.testing.assert_array_equal(container.read(name), tensor.double().numpy())


@pytest.mark.parametrize("length", range(120, 400, 8))
def test_any_header_length_is_recognised(length: int, tmp_path: Path, opened: Open) -> None:
    """Some of them are the first bytes of a pickle."""
    header = b'{"__metadata__":{"a":"b"}}'.ljust(length)
    (tmp_path / "a.safetensors").write_bytes(safetensors(header))
    assert opened(tmp_path / "a.safetensors").metadata == {"a": "b"}


def test_halves_keep_their_signs(tmp_path: Path, opened: Open) -> None:
    save_file({"x": np.array([-0.0, 0.0, -6e-8], np.float16)}, tmp_path / "a.safetensors")
    read = opened(tmp_path / "a.safetensors").read("x")
    assert np.signbit(read).tolist() == [True, False, True]


def test_shapes_without_elements_or_sides(tmp_path: Path, opened: Open) -> None:
    arrays = {"scalar": np.array(3.0, np.float32), "empty": np.zeros((0, 4), np.float16)}
    save_file(arrays, tmp_path / "a.safetensors")
    container = opened(tmp_path / "a.safetensors")
    assert container.read("scalar").shape == ()
    assert container.read("scalar") == 3.0
    assert container.read("empty").shape == (0, 4)


def test_metadata_and_order(tmp_path: Path, opened: Open) -> None:
    arrays = {name: np.zeros(3, np.float32) for name in "cab"}
    save_file(arrays, tmp_path / "a.safetensors", metadata={"format": "pt"})
    container = opened(tmp_path / "a.safetensors")
    assert container.metadata == {"format": "pt"}
    assert container.format == "safetensors"
    assert container.findings == ()
    assert sorted(container.tensors) == ["a", "b", "c"]


def test_metadata_may_be_null_as_mlx_writes_it(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "a.safetensors").write_bytes(safetensors({"__metadata__": None}))
    assert opened(tmp_path / "a.safetensors").metadata == {}


def test_a_file_that_shrinks_while_open_is_reported(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": np.zeros(1000, np.float32)}, path)
    container = opened(path)
    os.truncate(path, 2000)
    with pytest.raises(MalformedFile) as caught:
        container.read("x")
    assert caught.value.code == "file.truncated"


def test_a_closed_file_is_not_read(tmp_path: Path, opened: Open) -> None:
    save_file({"x": np.zeros(4, np.float32)}, tmp_path / "a.safetensors")
    container = opened(tmp_path / "a.safetensors")
    container.close()
    container.close()
    with pytest.raises(MalformedFile, match="cannot be read"):
        container.read("x")


def test_threads_read_at_once(tmp_path: Path, opened: Open) -> None:
    arrays = {f"t{n}": np.full((64, 64), n, np.float16) for n in range(40)}
    save_file(arrays, tmp_path / "a.safetensors")
    container = opened(tmp_path / "a.safetensors")
    with ThreadPoolExecutor(8) as pool:
        read = dict(zip(arrays, pool.map(container.read, arrays), strict=True))
    assert all((read[name] == arrays[name]).all() for name in arrays)


def test_shards_are_one_adapter(tmp_path: Path, opened: Open) -> None:
    for n in range(2):
        array = np.full(2, n, np.float32)
        save_file({f"t{n}": array}, tmp_path / f"{n}.safetensors", metadata={"first": str(n)})
    container = opened(tmp_path / "0.safetensors", tmp_path / "1.safetensors")
    assert list(container.tensors) == ["t0", "t1"]
    assert container.read("t1").tolist() == [1.0, 1.0]
    assert container.metadata == {"first": "0"}
    assert container.path == tmp_path / "0.safetensors"


def test_shards_share_no_tensor_and_one_limit(tmp_path: Path, opened: Open) -> None:
    paths = [tmp_path / f"{n}.safetensors" for n in range(3)]
    for path, name in zip(paths, "aab", strict=True):
        save_file({name: np.zeros(2, np.float32)}, path)
    with pytest.raises(MalformedFile) as caught:
        opened(*paths)
    assert caught.value.code == "file.duplicate-key"
    with pytest.raises(PeftGuardError, match="too many tensors"):
        opened(*paths[1:], limits=Limits(max_tensors=1))


# Whatever a header says: one of our errors, or what the library reads as well.

NUMBERS = st.one_of(
    st.integers(0, 9), st.integers(-(1 << 70), 1 << 70), st.floats(), st.booleans(), st.none()
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "U8", "F4", "C64", "f32", ""]),
        "shape": st.lists(NUMBERS, max_size=3),
        "data_offsets": st.lists(NUMBERS, min_size=1, max_size=3),
    },
    optional={"more": NUMBERS},
)
NAMES = st.text(max_size=3) | st.sampled_from(["a", "b", "__metadata__"])
HEADERS = st.dictionaries(NAMES, ENTRIES | st.dictionaries(NAMES, st.text() | NUMBERS), max_size=3)


@st.composite
def well_formed(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A header that is right, and its data."""
    header: dict[str, Any] = {}
    end = 0
    for name in draw(st.lists(NAMES, max_size=4, unique=True)):
        dtype = draw(st.sampled_from([*WIDTH]))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        start, end = end, end + int(np.prod(shape, dtype=int)) * WIDTH[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return header, draw(st.binary(min_size=end, max_size=end))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A right file with a few bytes changed, or cut, or with a value of its header exchanged."""
    header, data = draw(well_formed())
    if header and draw(st.booleans()):
        entry = header[draw(st.sampled_from(sorted(header)))]
        entry[draw(st.sampled_from(["dtype", "shape", "data_offsets"]))] = draw(
            NUMBERS | st.lists(NUMBERS, max_size=3) | st.text(max_size=4)
        )
    file = bytearray(safetensors(header, data))
    for _ in range(draw(st.integers(0, 3))):
        file[draw(st.integers(0, len(file) - 1))] = draw(st.integers(0, 255))
    return bytes(file[: draw(st.integers(len(file) - 3, len(file)))])


FILES = st.one_of(
    damaged(),
    well_formed().map(lambda parts: safetensors(*parts)),
    st.builds(lambda header, data: safetensors(header, data), HEADERS, st.binary(max_size=12)),
    st.builds(lambda text, data: safetensors(text.encode(), data), st.text(), st.binary()),
)
MANY = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(file=FILES)
@MANY
def test_what_is_accepted_is_what_the_library_reads(
    file: bytes, tmp_path: Path, attempt: Attempt
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(file)
    container = attempt(path)
    if isinstance(container, PeftGuardError):
        assert str(container).isprintable()
        return
    assert container.format == "safetensors"
    read = {name: container.read(name) for name in container.tensors}
    container.close()
    theirs = dict(deserialize(file))
    assert read.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert (container.tensors[name].dtype, list(read[name].shape)) == (
            tensor["dtype"], tensor["shape"],
        )  # fmt: skip
        stored = np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        expected = stored != 0 if tensor["dtype"] == "BOOL" else stored.astype(read[name].dtype)
        np.testing.assert_array_equal(read[name], expected)


@given(parts=well_formed())
@MANY
def test_what_is_right_is_accepted(
    parts: tuple[dict[str, Any], bytes], tmp_path: Path, attempt: Attempt
) -> None:
    """Unless a name holds control characters, or `__metadata__` came up as a tensor's."""
    header, data = parts
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors(header, data))
    try:
        deserialize(safetensors(header, data))
    except SafetensorError:
        return
    if any(ord(character) < 32 or ord(character) == 127 for name in header for character in name):
        return
    container = attempt(path)
    assert not isinstance(container, PeftGuardError)
    assert sorted(container.tensors) == sorted(header)
    container.close()
