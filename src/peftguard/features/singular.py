"""Exact singular values of a product B A from its factors, without the product.

With A = L Q^T (Q with orthonormal columns), B A = (B L) Q^T, so B L, as narrow as B, has the
product's singular values: the roots of the eigenvalues of (B L)^T (B L). L itself is the transposed
R of a QR of A^T, and also the Cholesky root of A A^T. Gram matrices are ten times as fast as QR, in
single precision twice as fast again, but lose small singular values; each is kept only where the
loss is known to be small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.update import FloatArray

Float64 = NDArray[np.float64]
Precision = type[np.float32] | type[np.float64]

_SINGLE_FROM_RANK = 128  # below, double precision costs next to nothing
# Largest accepted error of a singular value: of L relative to itself, of B L to the largest. Both
# are for the worst direction of the rounding error; measured ones are 20 times smaller.
_ROOT_ERROR = {np.float32: 2e-5, np.float64: 1e-8}
_VALUE_ERROR = {np.float32: 2e-5, np.float64: 1e-10}
_ORDINARY_SIZES = (1e-8, 1e8)  # largest entries whose products and squares stay well within float32
_BLOCK_ELEMENTS = 1 << 17  # 1 MiB in double precision: a block stays in the second-level cache


@dataclass(frozen=True, slots=True, eq=False)
class Core:
    """A product `size * B @ A`, and what is needed to know B @ A up to rotations.

    Args:
        B: (out, r) float32 or float64, entries of ordinary size.
        A: (r, in) likewise.
        size: what was divided out of the factors.
        root: L, as (r, min(r, in)) float64.
        gram: (B L)^T (B L), float64.
        energies: squared norm of every row of B @ A, as (out,) float64.
        values: singular values of B @ A, descending, as (min(r, in, out),); zero where rounding
            leaves no other answer.
    """

    B: FloatArray
    A: FloatArray
    size: float
    root: Float64
    gram: Float64
    energies: Float64
    values: Float64


def core_of(B: FloatArray, A: FloatArray) -> Core | None:
    """Reduce the product of B (out, r) and A (r, in); None for NaN or infinite entries."""
    (rank, into), out = A.shape, B.shape[0]
    size_B, size_A = largest_entry(B), largest_entry(A)
    if not (math.isfinite(size_B) and math.isfinite(size_A)):
        return None
    if size_B == 0 or size_A == 0:
        root, square = np.zeros((rank, min(rank, into))), np.zeros((min(rank, into),) * 2)
        return Core(B, A, 0.0, root, square, np.zeros(out), np.zeros(min(out, rank, into)))
    (B, size_B), (A, size_A) = _ordinary(B, size_B), _ordinary(A, size_A)
    root = _root(A)
    for precision in _precisions(B):
        gram, energies = _turned_gram(B, root, precision)
        values = _values_of(gram, out, precision)
        if values is not None:
            break
    if values is None:
        values = _accurate_values(B, root)
    return Core(B, A, size_B * size_A, root, gram, energies, values)


def decomposed(B: FloatArray, A: FloatArray) -> tuple[Float64, Float64, Float64]:
    """Singular value decomposition U, s, V^T of B @ A, without the product.

    Slower than `core_of`, which gives values alone; factors may be of any sizes that cancel out.

    Args:
        B: (out, r), finite.
        A: (r, in), finite.
    """
    left, left_core = np.linalg.qr(B.astype(np.float64))
    right, right_core = np.linalg.qr(A.T.astype(np.float64))
    sizes = [largest_entry(core) or 1.0 for core in (left_core, right_core)]
    core = (left_core / sizes[0]) @ (right_core / sizes[1]).T
    turn, values, back = np.linalg.svd(core, full_matrices=False)
    return left @ turn, values * sizes[0] * sizes[1], back @ right.T


def largest_entry(factor: FloatArray) -> float:
    """Largest absolute entry; 0 if there is none, not finite if an entry is not."""
    if factor.size == 0:
        return 0.0
    return max(float(factor.max()), -float(factor.min()))


def blocks(
    factor: FloatArray, precision: Precision, width: int | None = None
) -> Iterator[FloatArray]:
    """Blocks of columns in the given precision, so that a cast never copies the whole factor."""
    width = width or max(256, _BLOCK_ELEMENTS // factor.shape[0])
    for start in range(0, factor.shape[1], width):
        yield factor[:, start : start + width].astype(precision, copy=False)


def _ordinary(factor: FloatArray, size: float) -> tuple[FloatArray, float]:
    """The factor and 1; where its squares would leave the range, the factor / size and size."""
    if _ORDINARY_SIZES[0] <= size <= _ORDINARY_SIZES[1]:
        return factor, 1.0
    return np.divide(factor, size, dtype=np.float64).astype(factor.dtype), size


def _precisions(factor: FloatArray) -> tuple[Precision, ...]:
    """What to try for the Gram matrix over the longer side, fastest first."""
    if factor.dtype == np.float32 and min(factor.shape) >= _SINGLE_FROM_RANK:
        return np.float32, np.float64
    return (np.float64,)


def _root(A: FloatArray) -> Float64:
    """L of A = L Q^T, from the Gram matrix where that is accurate."""
    if A.shape[1] > A.shape[0]:
        for precision in _precisions(A):
            gram = np.zeros((A.shape[0],) * 2)
            for block in blocks(A, precision):
                gram += block @ block.T
            # An error E in the Gram matrix is A -> (I + F) A with F at most E over twice its least
            # eigenvalue, and moves any singular value of any B A by that much of itself.
            floor = _rounding(gram, A.shape[1], precision) / (2 * _ROOT_ERROR[precision])
            try:
                # Exists only if every eigenvalue is above the floor: a check without eigenvalues.
                np.linalg.cholesky(gram - floor * np.eye(len(gram)))
                return cast(Float64, np.linalg.cholesky(gram))
            except np.linalg.LinAlgError:
                continue
    return _triangle(A)


def _triangle(factor: FloatArray) -> Float64:
    """L of factor = L Q^T by QR; the factor itself where it is no wider than high."""
    rank, width = factor.shape
    if width <= rank:
        return factor.astype(np.float64)
    return cast(Float64, np.linalg.qr(factor.T.astype(np.float64), mode="r")).T


def _rounding(gram: Float64, length: int, precision: Precision) -> float:
    """Bound on the norm of a Gram matrix's error, summed by blocks over vectors of that length.

    Measured, on well and badly conditioned factors of rank 128 to 512: 0.7 to 2.8e-6 times
    sqrt(rank / length) times the largest diagonal entry in single precision. It falls with the
    length since the rounding errors of blocks average out.
    """
    unit = {np.float32: 3e-6, np.float64: 6e-15}[precision]
    return unit * math.sqrt(len(gram) / length) * float(gram.diagonal().max())


def _turned_gram(B: FloatArray, root: Float64, precision: Precision) -> tuple[Float64, Float64]:
    """(B L)^T (B L) and the squared norms of the rows of B L, by blocks of rows."""
    turn: FloatArray = root.T.astype(precision)
    triangular = root.shape[0] == root.shape[1] and not root[0, 1:].any()
    gram, energies = np.zeros((len(turn),) * 2), []
    for block in blocks(B.T, precision):
        turned = _by_strips(turn, block) if triangular else turn @ block
        gram += turned @ turned.T
        energies.append(np.einsum("ij,ij->j", turned, turned, dtype=np.float64))
    return gram, np.concatenate(energies)


def _by_strips(upper: FloatArray, block: FloatArray, strip: int = 64) -> FloatArray:
    """`upper @ block` for an upper triangular matrix, most of its zeros left out."""
    product = np.empty((len(upper), block.shape[1]), upper.dtype)
    for start in range(0, len(upper), strip):
        rows = slice(start, start + strip)
        np.matmul(upper[rows, start:], block[start:], out=product[rows])
    return product


def _values_of(gram: Float64, length: int, precision: Precision) -> Float64 | None:
    """Singular values from their squares, descending; None where squaring may cost too much."""
    squares = cast(Float64, np.linalg.eigvalsh(gram))[::-1]
    if squares[-1] <= 0:
        return None
    values = np.sqrt(squares)
    error = _rounding(gram, length, precision) / (2 * values[-1])
    return values if error <= _VALUE_ERROR[precision] * values[0] else None


def _accurate_values(B: FloatArray, root: Float64) -> Float64:
    """Singular values of B L without any squaring, zero below the rounding error."""
    values = cast(Float64, np.linalg.svd(_triangle(B.T).T @ root, compute_uv=False))
    noise = 1e-15 * root.shape[0] * float(np.linalg.norm(B) * np.linalg.norm(root))
    return np.where(values > noise, values, 0.0)
