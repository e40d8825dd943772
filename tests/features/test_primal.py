"""A combination in low-rank form against the dense one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftguard.features.inner_product import Site, inner_products
from peftguard.features.primal import combine, response
from peftguard.features.weights import Factors, Weights

SITE = Site("q", (12, 9))


def adapter(rng: np.random.Generator, rank: int | None) -> Weights:
    if rank is None:
        return Weights("none", {"other": Factors(np.ones((2, 1)), np.ones((1, 2)))})
    B, A = rng.normal(size=(12, rank)), rng.normal(size=(rank, 9))
    return Weights("some", {"q": Factors(B.astype(np.float32), A.astype(np.float32))})


def dense(weights: Weights) -> np.ndarray:
    factors = SITE.factors(weights)
    return np.zeros(SITE.shape) if factors is None else factors.B.astype(float) @ factors.A


@st.composite
def combinations(draw: st.DrawFn) -> tuple[list[Weights], np.ndarray]:
    """Ranks that sum to less than the width, and to more."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ranks = draw(st.lists(st.sampled_from([None, 0, 1, 2, 4, 13]), min_size=1, max_size=5))
    coefficients = rng.normal(size=len(ranks)) * rng.integers(0, 2, len(ranks))
    return [adapter(rng, rank) for rank in ranks], coefficients


@settings(deadline=None, max_examples=60)
@given(given_=combinations())
def test_whole_combination(given_: tuple[list[Weights], np.ndarray]) -> None:
    adapters, coefficients = given_
    expected = sum(c * dense(a) for c, a in zip(coefficients, adapters, strict=True))
    weight, lost = combine(adapters, coefficients, SITE)
    np.testing.assert_allclose(weight.B @ weight.A, expected, rtol=1e-4, atol=1e-4)
    assert weight.shape == SITE.shape
    assert lost == 0
    assert len(weight.A) == np.linalg.matrix_rank(expected, tol=1e-6)


@settings(deadline=None, max_examples=60)
@given(given_=combinations(), rank=st.integers(1, 5))
def test_best_of_its_rank(given_: tuple[list[Weights], np.ndarray], rank: int) -> None:
    adapters, coefficients = given_
    expected = sum(c * dense(a) for c, a in zip(coefficients, adapters, strict=True))
    values = np.linalg.svd(expected + np.zeros(SITE.shape), compute_uv=False)
    weight, lost = combine(adapters, coefficients, SITE, rank)
    assert len(weight.A) <= rank
    assert lost == pytest.approx(np.sum(values[rank:] ** 2) / (np.sum(values**2) or 1), abs=1e-6)
    error = np.sum((weight.B @ weight.A - expected) ** 2)
    assert error == pytest.approx(np.sum(values[rank:] ** 2), abs=1e-4 * (1 + np.sum(values**2)))


@settings(deadline=None, max_examples=40)
@given(given_=combinations(), rank=st.sampled_from([None, 0, 3]))
def test_response_is_the_combined_inner_product(
    given_: tuple[list[Weights], np.ndarray], rank: int | None
) -> None:
    adapters, coefficients = given_
    stranger = adapter(np.random.default_rng(1), rank)
    weight, _ = combine(adapters, coefficients, SITE)
    expected = coefficients @ inner_products(adapters, [stranger], SITE)[:, 0]
    assert response(weight, stranger, SITE) == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_other_factors_of_the_same_updates() -> None:
    rng = np.random.default_rng(2)
    adapters = [adapter(rng, 2), adapter(rng, 3)]
    turned = []
    for one in adapters:
        factors = one.modules["q"]
        mix = rng.normal(size=(len(factors.A),) * 2)
        B, A = factors.B @ np.linalg.inv(mix), mix @ factors.A
        turned.append(Weights("t", {"q": Factors(B.astype(np.float32), A.astype(np.float32))}))
    one, other = (combine(side, [1, -2], SITE, 2).weight for side in (adapters, turned))
    np.testing.assert_allclose(one.B @ one.A, other.B @ other.A, atol=1e-3)


def test_nothing_to_combine() -> None:
    weight, lost = combine([adapter(np.random.default_rng(0), None)], [1.0], SITE)
    assert (weight.B.shape, weight.A.shape, lost) == ((12, 0), (0, 9), 0.0)
    assert response(weight, adapter(np.random.default_rng(0), 2), SITE) == 0
