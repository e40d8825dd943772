"""A direction that is taken out gives nothing; whatever is orthogonal to it gives what it gave."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from peftguard.mitigation.directions import blind_to, without


@st.composite
def factors(draw: st.DrawFn) -> tuple[np.random.Generator, int, int, int]:
    """A generator, a width, a rank, a number of directions."""
    width = 4 * draw(st.integers(1, 8))
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed), width, draw(st.integers(0, 9)), draw(st.integers(0, width))


def orthonormal(rng: np.random.Generator, width: int, count: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(width, count)))[0].T.astype(np.float32)


@given(factors())
def test_inputs(case: tuple[np.random.Generator, int, int, int]) -> None:
    rng, width, rank, count = case
    A, seen = rng.normal(size=(rank, width)).astype(np.float32), orthonormal(rng, width, count)
    blind = blind_to(A, seen)
    assert blind.shape == A.shape
    np.testing.assert_allclose(blind @ seen.T, 0, atol=1e-5)
    other = rng.normal(size=width)
    other -= seen.T @ (seen @ other)
    np.testing.assert_allclose(blind @ other, A @ other, atol=1e-4)


@given(factors(), st.sampled_from([1, 2, 4]))
def test_outputs(case: tuple[np.random.Generator, int, int, int], heads: int) -> None:
    rng, width, rank, count = case
    each = width // heads
    B = rng.normal(size=(width, rank)).astype(np.float32)
    gone = [orthonormal(rng, each, min(count, each)) for _ in range(heads)]
    left = np.split(without(B, gone), heads)
    for part, before, own in zip(left, np.split(B, heads), gone, strict=True):
        np.testing.assert_allclose(own @ part, 0, atol=1e-5)
        other = rng.normal(size=each)
        other -= own.T @ (own @ other)
        np.testing.assert_allclose(other @ part, other @ before, atol=1e-4)


def test_of_no_heads_everything_is_left() -> None:
    B = np.ones((4, 2), np.float32)
    assert without(B, ()) is B
