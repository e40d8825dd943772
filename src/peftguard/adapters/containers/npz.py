"""NumPy's .npz, as MLX-LM once wrote its adapters: a zip of arrays, objects never unpickled."""

from __future__ import annotations

import io
import math
import zipfile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.containers.archive import Archive
from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.containers.dtypes import WIDTH, decode, is_possible, name_of
from peftguard.adapters.containers.names import shown, too_many
from peftguard.adapters.containers.stored import Stored, StoredTensors
from peftguard.adapters.plainfile import PlainFile
from peftguard.errors import MalformedFile
from peftguard.limits import Deadline, Limits

SUFFIX = ".npy"
_MAX_ARRAY_HEADER = 10_000
_BFLOAT16 = np.dtype("V2")


def open_npz(archive: Archive, limits: Limits, deadline: Deadline) -> StoredTensors:
    """Open an archive all of whose members are arrays; their names come without `.npy`.

    Raises:
        MalformedFile: an array's header is broken, or its elements are not plain numbers.
        LimitExceeded: too many arrays, or out of time.
    """
    if len(archive.members) > limits.max_tensors:
        raise too_many(archive.file.name, len(archive.members), limits)
    stored = []
    for member in archive.members:
        deadline.check(f"reading {archive.file.name}")
        stored.append(_stored(archive, member))
    return StoredTensors(archive.file, stored, deadline, format="npz", metadata={})


class _ArrayHeader(NamedTuple):
    shape: tuple[int, ...]
    by_column: bool
    dtype: np.dtype[np.generic]
    length: int


def _stored(archive: Archive, member: zipfile.ZipInfo) -> Stored:
    header = _array_header(archive, member)
    dtype = "BF16" if header.dtype == _BFLOAT16 else name_of(header.dtype)
    shape = header.shape
    if dtype is None:
        raise _broken(archive.file, member, "not an array of plain numbers", header.dtype.str)
    if not is_possible(shape):
        raise _broken(archive.file, member, "the shape is impossibly large", str(shape))
    size = math.prod(shape) * WIDTH[dtype]
    if size != member.file_size - header.length:
        found = f"{size} bytes in {member.file_size - header.length}"
        raise _broken(archive.file, member, "dtype and shape disagree with the size", found)
    info = TensorInfo(member.filename.removesuffix(SUFFIX), dtype, shape, size)
    start = archive.start(member) + header.length
    return Stored(info, start, _decode_columns if header.by_column else decode)


def _array_header(archive: Archive, member: zipfile.ZipInfo) -> _ArrayHeader:
    text = io.BytesIO(archive.head(member, _MAX_ARRAY_HEADER + 16))
    try:
        version = np.lib.format.read_magic(text)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, by_column, dtype = read(text, max_header_size=_MAX_ARRAY_HEADER)
    # numpy parses the header as a Python literal: hostile ones raise nearly anything.
    except Exception as error:
        problem = f"not an array: {type(error).__name__}"
        raise _broken(archive.file, member, problem, None) from None
    if not all(type(side) is int and side >= 0 for side in shape):
        raise _broken(archive.file, member, "a shape must be sizes", str(shape))
    return _ArrayHeader(shape, by_column, dtype, text.tell())


def _decode_columns(raw: NDArray[np.uint8], info: TensorInfo) -> NDArray[np.generic]:
    """An array that was written column by column."""
    turned = TensorInfo(info.name, info.dtype, info.shape[::-1], info.n_bytes)
    return decode(raw, turned).transpose()


def _broken(
    file: PlainFile, member: zipfile.ZipInfo, problem: str, found: str | None
) -> MalformedFile:
    return MalformedFile(problem, file=file.name, key=shown(member.filename), found=found)
