"""A linear combination of updates as one low-rank weight a place: scoring needs no adapters then.

sum c_i B_i A_i is the product of the factors side by side. Of tall factors, QR leaves a core as
small as the ranks' sum; once that sum reaches the width of the update, the sum itself is smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peftguard.features.inner_product import Site
from peftguard.features.singular import decomposed
from peftguard.features.weights import Factors, Weights

Float64 = NDArray[np.float64]

_ROUNDING = 1e-12  # singular values below this share of the largest are zeros


class Combination(NamedTuple):
    """A combined update, and what its low rank leaves out.

    Args:
        weight: B (out, k) and A (k, in), float32; k is 0 where nothing was combined.
        lost: share of the squared Frobenius norm that was dropped, in [0, 1).
    """

    weight: Factors
    lost: float


def combine(
    adapters: Sequence[Weights], coefficients: ArrayLike, site: Site, max_rank: int | None = None
) -> Combination:
    """The best approximation of rank `max_rank` to sum of coefficient times update at one place.

    Args:
        adapters: n of them; those without an update here count as zero.
        coefficients: (n,).
        site: the place.
        max_rank: most singular values that are kept; None keeps every one.
    """
    pairs = [
        (float(coefficient), factors)
        for coefficient, adapter in zip(np.asarray(coefficients), adapters, strict=True)
        if coefficient != 0 and (factors := site.factors(adapter)) is not None
    ]
    left, values, right = _decomposed(pairs, site)
    energy = float(np.sum(values**2))
    kept = min(len(values), len(values) if max_rank is None else max_rank)
    root = np.sqrt(values[:kept])
    B, A = left[:, :kept] * root, root[:, None] * right[:kept]
    lost = float(np.sum(values[kept:] ** 2)) / energy if energy else 0.0
    return Combination(Factors(B.astype(np.float32), A.astype(np.float32)), lost)


def response(weight: Factors, adapter: Weights, site: Site) -> float:
    """Inner product of a weight with the adapter's update at one place; 0 if it has none."""
    factors = site.factors(adapter)
    if factors is None or not len(weight.A):
        return 0.0
    left = weight.B.T.astype(np.float64) @ factors.B.astype(np.float64)
    right = weight.A.astype(np.float64) @ factors.A.T.astype(np.float64)
    return float(np.sum(left * right))


def _decomposed(
    pairs: Sequence[tuple[float, Factors]], site: Site
) -> tuple[Float64, Float64, Float64]:
    """U, s, V^T of the sum, without zero singular values."""
    if not pairs:
        return np.zeros((site.shape[0], 0)), np.zeros(0), np.zeros((0, site.shape[1]))
    beside = np.concatenate([c * factors.B.astype(np.float64) for c, factors in pairs], axis=1)
    stacked = np.concatenate([factors.A.astype(np.float64) for _, factors in pairs])
    if len(stacked) < min(site.shape):
        left, values, right = decomposed(beside, stacked)
    else:
        left, values, right = np.linalg.svd(beside @ stacked, full_matrices=False)
    kept = int(np.sum(values > _ROUNDING * values[0]))
    return left[:, :kept], values[:kept], right[:kept]
