"""Factors as matrices, checked: present, of fitting shapes, and not too large."""

from __future__ import annotations

import numpy as np

from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.update import Exactness, FloatArray
from peftguard.errors import LimitExceeded, MalformedFile
from peftguard.limits import MIB

MAX_BYTES = 256 * MIB
"""Most memory for one module's factors, where they are larger than what the file stores (LoHa,
LoKr, VeRA). Modules are read in several threads at once, and decomposing takes copies."""


def need(module: ModuleParts, part: str, n_dimensions: int | None = None) -> FloatArray:
    """The tensor `part` of a module, with `n_dimensions` if given.

    Raises:
        MalformedFile: it is missing, or has another number of dimensions.
    """
    if part not in module.info:
        raise MalformedFile(
            "a factor is missing",
            key=module.module,
            expected=part,
            found=", ".join(module.info),
            code="integrity.unpaired-factor",
        )
    shape = module.info[part].shape
    if n_dimensions is not None and len(shape) != n_dimensions:
        raise misfit(module, f"{part} with {n_dimensions} dimensions", f"{part} {shape}")
    return module.read(part)


def flattened(array: FloatArray, module: ModuleParts, part: str) -> FloatArray:
    """(r, in, *kernel) as the matrix (r, in * prod(kernel)), rows of a convolution's patches."""
    if array.ndim < 2 or 0 in array.shape:
        raise misfit(module, f"{part} of at least two dimensions, none zero", str(array.shape))
    return array.reshape(array.shape[0], -1)


def pointwise(array: FloatArray, module: ModuleParts, part: str) -> FloatArray:
    """(out, r) from (out, r) or (out, r, 1, ..), a convolution without a kernel of its own."""
    if array.ndim < 2 or 0 in array.shape or set(array.shape[2:]) - {1}:
        raise misfit(module, f"{part} of shape (out, r) or (out, r, 1, ..)", str(array.shape))
    return array.reshape(array.shape[:2])


def pair(A: FloatArray, B: FloatArray, module: ModuleParts) -> tuple[FloatArray, FloatArray]:
    """A (r, in) and B (out, r) in one dtype.

    Raises:
        MalformedFile: their inner dimensions differ.
    """
    if A.shape[0] != B.shape[1]:
        raise misfit(module, "B with as many columns as A has rows", f"A {A.shape}, B {B.shape}")
    dtype = np.result_type(A, B)
    return A.astype(dtype, copy=False), B.astype(dtype, copy=False)


def exactness(module: ModuleParts) -> Exactness:
    """`direction` if a learnt magnitude (DoRA) rescales the whole weight."""
    return "direction" if "lora_magnitude_vector" in module.info else "exact"


def check_size(
    module: str, *shapes: tuple[int, ...], item_bytes: int = 4, most_bytes: int | None = None
) -> None:
    """Raise `LimitExceeded` if arrays of these shapes take more than `most_bytes` (`MAX_BYTES`)."""
    n_bytes = item_bytes * sum(int(np.prod(shape, dtype=object)) for shape in shapes)
    most_bytes = MAX_BYTES if most_bytes is None else most_bytes
    if n_bytes > most_bytes:
        raise LimitExceeded(
            "the exact factors are too large",
            key=module,
            expected=f"at most {most_bytes} bytes",
            found=f"{n_bytes} bytes",
        )


def misfit(module: ModuleParts, expected: str, found: str) -> MalformedFile:
    """The error for tensors of one module whose shapes do not go together."""
    return MalformedFile(
        "shapes do not fit together",
        key=module.module,
        expected=expected,
        found=found,
        code="integrity.shape-mismatch",
    )
