"""Exact singular values of a product B A from its factors, without the product.

With A = L_A Q_A^T and B = Q_B L_B^T (Q with orthonormal columns), B A = Q_B (L_B^T L_A) Q_A^T, so
the small matrix L_B^T L_A has the product's singular values. L_A is the transposed R of a QR of
A^T, and also the Cholesky root of the Gram matrix A A^T. The second road is ten times as fast, and
taken where its accuracy is certain.
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

# Rounding moves a Gram matrix by up to e sqrt(r) times its largest diagonal entry (measured: 7e-8
# for e in single precision, 2e-16 in double), and each singular value by half of that over the
# least eigenvalue, relative to itself, since it amounts to A -> (I + E) A. With least eigenvalues
# above these, in units of sqrt(r) times the diagonal, 1e-5 and 1e-8 are kept.
_LEAST_EIGENVALUE = {np.dtype(np.float32): 3e-3, np.dtype(np.float64): 1e-8}
_SINGLE_FROM_RANK = 128  # below, double precision costs next to nothing
_SAFE_SIZES = (1e-8, 1e8)  # largest entries whose products and squares stay well within float32
_BLOCK_ELEMENTS = 1 << 17  # 1 MiB in double precision: a block stays in the second-level cache


@dataclass(frozen=True, slots=True, eq=False)
class Core:
    """A product `size * B @ A`, and what is left of B @ A without its orthonormal parts.

    Args:
        B: (out, r) float32 or float64, entries of ordinary size.
        A: (r, in) likewise.
        size: what was divided out of the factors.
        left: L_B, (r, min(r, out)) float64.
        right: L_A, (r, min(r, in)) float64.
        values: singular values of B @ A, descending; zero where rounding leaves no other answer.
    """

    B: FloatArray
    A: FloatArray
    size: float
    left: Float64
    right: Float64
    values: Float64


def core_of(B: FloatArray, A: FloatArray) -> Core | None:
    """Reduce the product of B (out, r) and A (r, in); None for NaN or infinite entries."""
    size_B, size_A = largest_entry(B), largest_entry(A)
    if not (math.isfinite(size_B) and math.isfinite(size_A)):
        return None
    if size_B == 0 or size_A == 0:
        nothing = np.zeros((A.shape[0], 0))
        return Core(B, A, 0.0, nothing, nothing, np.zeros(min(B.shape[0], *A.shape)))
    (B, size_B), (A, size_A) = _ordinary(B, size_B), _ordinary(A, size_A)
    # A stays near its well-conditioned start, where single precision will do. B grows out of zero:
    # with the condition it has in adapters found in the wild (2 to 300), a try would be in vain.
    left, right = _root(B.T, try_single=False), _root(A, try_single=True)
    values = _values_of(left.T @ right)
    noise = 1e-15 * A.shape[0] * float(np.linalg.norm(left) * np.linalg.norm(right))
    return Core(B, A, size_B * size_A, left, right, np.where(values > noise, values, 0.0))


def largest_entry(factor: FloatArray) -> float:
    """Largest absolute entry; 0 if there is none, not finite if an entry is not."""
    if factor.size == 0:
        return 0.0
    return max(float(factor.max()), -float(factor.min()))


def blocks(factor: FloatArray, dtype: type[np.floating]) -> Iterator[FloatArray]:
    """Blocks of columns in the given dtype, so that a cast never copies the whole factor."""
    width = max(256, _BLOCK_ELEMENTS // factor.shape[0])
    for start in range(0, factor.shape[1], width):
        yield factor[:, start : start + width].astype(dtype, copy=False)


def _ordinary(factor: FloatArray, size: float) -> tuple[FloatArray, float]:
    """The factor and 1; where its squares would leave the range, the factor / size and size."""
    if _SAFE_SIZES[0] <= size <= _SAFE_SIZES[1]:
        return factor, 1.0
    return np.divide(factor, size, dtype=np.float64).astype(factor.dtype), size


def _root(factor: FloatArray, *, try_single: bool) -> Float64:
    """L of factor = L Q^T; the (r, n) factor itself where it is no wider than high."""
    rank, width = factor.shape
    if width <= rank:
        return factor.astype(np.float64)
    single = try_single and rank >= _SINGLE_FROM_RANK and factor.dtype == np.float32
    for dtype in (np.float32, np.float64) if single else (np.float64,):
        root = _cholesky(factor, dtype)
        if root is not None:
            return root
    return cast(Float64, np.linalg.qr(factor.T.astype(np.float64), mode="r")).T


def _cholesky(factor: FloatArray, dtype: type[np.floating]) -> Float64 | None:
    """Cholesky root of the Gram matrix, None where its condition would spoil the result."""
    gram = np.zeros((factor.shape[0],) * 2)
    for block in blocks(factor, dtype):
        gram += block @ block.T
    floor = _LEAST_EIGENVALUE[np.dtype(dtype)] * math.sqrt(len(gram)) * gram.diagonal().max()
    try:
        # Exists only if every eigenvalue exceeds the floor: a check that needs no eigenvalues.
        np.linalg.cholesky(gram - floor * np.eye(len(gram)))
        return cast(Float64, np.linalg.cholesky(gram))
    except np.linalg.LinAlgError:
        return None


def _values_of(product: Float64) -> Float64:
    """Singular values, descending."""
    wide = product if product.shape[0] <= product.shape[1] else product.T
    squares = cast(Float64, np.linalg.eigvalsh(wide @ wide.T))[::-1]
    # Half the time of an SVD, but squaring costs small values their digits: only if there are none.
    if squares[-1] > 1e-8 * squares[0]:
        return np.sqrt(squares)
    return cast(Float64, np.linalg.svd(wide, compute_uv=False))
