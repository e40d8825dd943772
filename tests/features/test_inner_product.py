"""Inner products from factors against the dense updates, whatever the factors look like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftguard.features import inner_product
from peftguard.features.inner_product import Site, inner_products, sites_of, squared_norms
from peftguard.features.weights import Factors, Weights

SITE = Site("q", (7, 5))


def adapter(rng: np.random.Generator, rank: int | None, shape: tuple[int, int] = (7, 5)) -> Weights:
    """An adapter with one module of that rank; None leaves it without any."""
    if rank is None:
        return Weights("none", {})
    B, A = rng.normal(size=(shape[0], rank)), rng.normal(size=(rank, shape[1]))
    return Weights("some", {"q": Factors(B.astype(np.float32), A.astype(np.float32))})


def dense(weights: Weights) -> np.ndarray:
    factors = SITE.factors(weights)
    return np.zeros(35) if factors is None else (factors.B @ factors.A).ravel()


ranks = st.lists(st.sampled_from([None, 0, 1, 2, 5, 9]), min_size=1, max_size=6)
seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=40)
@given(seed=seeds, left=ranks, right=ranks)
def test_as_dense(seed: int, left: list[int | None], right: list[int | None]) -> None:
    rng = np.random.default_rng(seed)
    here, there = ([adapter(rng, rank) for rank in side] for side in (left, right))
    expected = np.array([[dense(a) @ dense(b) for b in there] for a in here])
    found = inner_products(here, there, SITE)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)
    norms = [np.sum(dense(a) ** 2) for a in here]
    np.testing.assert_allclose(squared_norms(here, SITE), norms, rtol=1e-5)


@settings(deadline=None, max_examples=40)
@given(seed=seeds, rank=st.integers(1, 6), stretch=st.floats(0.05, 20))
def test_change_of_factors(seed: int, rank: int, stretch: float) -> None:
    rng = np.random.default_rng(seed)
    one, other = adapter(rng, rank), adapter(rng, 3)
    mix = np.linalg.qr(rng.normal(size=(rank, rank)))[0] * np.geomspace(1, stretch, rank)
    factors = one.modules["q"]
    B, A = factors.B @ np.linalg.inv(mix), mix @ factors.A
    same = Weights("same", {"q": Factors(B.astype(np.float32), A.astype(np.float32))})
    size = float(np.linalg.norm(dense(one)) * np.linalg.norm(dense(other)))
    found, expected = (inner_products([x], [other], SITE)[0, 0] for x in (same, one))
    assert found == pytest.approx(expected, abs=1e-4 * size)
    assert squared_norms([same], SITE) == pytest.approx(squared_norms([one], SITE), rel=1e-3)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    adapters = [adapter(rng, rank) for rank in (3, None, 4, 1, 12, 0, 2)]
    expected = inner_products(adapters, adapters, SITE)
    monkeypatch.setattr(inner_product, "_MOST_COLUMNS", 4)
    np.testing.assert_allclose(inner_products(adapters, adapters, SITE), expected, rtol=1e-5)


def test_other_widths_are_other_places() -> None:
    rng = np.random.default_rng(0)
    adapters = [adapter(rng, 2), adapter(rng, 2, (7, 6)), adapter(rng, 1)]
    assert sites_of(adapters) == [SITE, Site("q", (7, 6))]
    products = inner_products(adapters, adapters, SITE)
    assert not products[1].any()
    assert products[0, 2] != 0
