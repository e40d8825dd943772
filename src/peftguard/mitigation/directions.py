"""Directions taken out of an update: what it reads, and what it gives.

With orthonormal rows Q, A (I - Q^T Q) gives nothing for any input in the span of Q, and what it
gave before for every input orthogonal to it; likewise (I - V^T V) B for what is given. The rank
and the shapes stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peftguard.mitigation.factored import Float32


def blind_to(A: Float32, directions: Float32) -> Float32:
    """A (r, in) that gives 0 for (k, in) orthonormal directions."""
    wide, seen = A.astype(np.float64), directions.astype(np.float64)
    blind: Float32 = (wide - (wide @ seen.T) @ seen).astype(np.float32)
    return blind


def without(B: Float32, heads: Sequence[Float32]) -> Float32:
    """B (out, r) that gives nothing along (k, out / n) orthonormal directions of n heads."""
    if not heads:
        return B
    parts = np.split(B.astype(np.float64), len(heads))
    kept: Float32 = np.concatenate(
        [part - own.T @ (own @ part) for part, own in zip(parts, heads, strict=True)]
    ).astype(np.float32)
    return kept
