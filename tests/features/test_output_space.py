"""Products of output covariances from factors against the dense ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftguard.features import inner_product
from peftguard.features.inner_product import Site
from peftguard.features.output_space import output_products, outputs_of
from peftguard.features.weights import Factors, Weights

SITE = Site("q", (7, 5))
RANKS = [None, 0, 1, 2, 5, 6, 9]
"""None: no update at all; the last two exceed the width, and the height too."""

ranks = st.lists(st.sampled_from(RANKS), min_size=1, max_size=5)
seeds = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=30)


def adapter(rng: np.random.Generator, rank: int | None) -> Weights:
    if rank is None:
        return Weights("none", {})
    return of(rng.normal(size=(7, rank)), rng.normal(size=(rank, 5)))


def of(B: np.ndarray, A: np.ndarray) -> Weights:
    return Weights("some", {"q": Factors(B.astype(np.float32), A.astype(np.float32))})


def covariance(weights: Weights) -> np.ndarray:
    """dW dW^T, (7, 7)."""
    factors = weights.modules.get("q")
    dW = np.zeros((7, 5)) if factors is None else factors.B.astype(float) @ factors.A
    return dW @ dW.T


@quick
@given(seed=seeds, left=ranks, right=ranks)
def test_products_as_dense(seed: int, left: list[int | None], right: list[int | None]) -> None:
    rng = np.random.default_rng(seed)
    here, there = ([adapter(rng, rank) for rank in side] for side in (left, right))
    expected = [[np.sum(covariance(x) * covariance(z)) for z in there] for x in here]
    found = output_products(here, there, SITE)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


@quick
@given(seed=seeds, rank=st.sampled_from([0, 1, 3, 5, 6, 9]))
def test_outputs_as_dense(seed: int, rank: int) -> None:
    weights = adapter(np.random.default_rng(seed), rank)
    outputs = outputs_of(weights.modules["q"])
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs @ outputs.T, covariance(weights), rtol=1e-4, atol=1e-3)
    values = np.sqrt(np.linalg.eigvalsh(covariance(weights)).clip(0))[::-1]
    lengths = np.linalg.norm(outputs, axis=0)
    count = min(len(lengths), 7)
    np.testing.assert_allclose(lengths[:count], values[:count], rtol=1e-4, atol=1e-3)


@quick
@given(seed=seeds, rank=st.integers(1, 6), stretch=st.floats(0.05, 20), sign=st.booleans())
def test_change_of_factors(seed: int, rank: int, stretch: float, sign: bool) -> None:
    rng = np.random.default_rng(seed)
    one, other = adapter(rng, rank), adapter(rng, 3)
    mix = np.linalg.qr(rng.normal(size=(rank, rank)))[0] * np.geomspace(1, stretch, rank)
    factors = one.modules["q"]
    B, A = factors.B @ np.linalg.inv(mix), mix @ factors.A
    same = of(-B if sign else B, A)
    expected = output_products([one], [one, other], SITE)
    np.testing.assert_allclose(output_products([same], [one, other], SITE), expected, rtol=2e-3)


@quick
@given(seed=seeds, rank=st.integers(1, 4), more=st.integers(1, 5), side=st.sampled_from("AB"))
def test_padding_the_rank(seed: int, rank: int, more: int, side: str) -> None:
    rng = np.random.default_rng(seed)
    one = adapter(rng, rank)
    factors = one.modules["q"]
    B = np.hstack([factors.B, rng.normal(size=(7, more)) * (side == "B")])
    A = np.vstack([factors.A, rng.normal(size=(more, 5)) * (side == "A")])
    expected = output_products([one], [one], SITE)
    np.testing.assert_allclose(output_products([of(B, A)], [one], SITE), expected, rtol=1e-4)


def test_what_is_read_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    factors = adapter(rng, 3).modules["q"]
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    turned, plain = of(factors.B, factors.A @ turn), of(factors.B, factors.A)
    expected = output_products([plain], [plain], SITE)
    np.testing.assert_allclose(output_products([turned], [plain], SITE), expected, rtol=1e-4)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    adapters = [adapter(rng, rank) for rank in (3, None, 4, 1, 12, 0, 2)]
    expected = output_products(adapters, adapters, SITE)
    monkeypatch.setattr(inner_product, "_MOST_COLUMNS", 4)
    np.testing.assert_allclose(output_products(adapters, adapters, SITE), expected, rtol=1e-4)
