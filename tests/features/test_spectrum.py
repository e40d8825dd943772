"""The spectrum against a float64 SVD of the dense update, and the odd inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peftguard.adapters.update import Update
from peftguard.features.profile import ModuleProfile
from peftguard.features.spectrum import profile

RATIOS = (
    "energy_concentration",
    "spectral_entropy",
    "effective_rank",
    "stable_rank",
    "kurtosis",
)
FIGURES = ("sigma_1", "frobenius", *RATIOS)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def decaying(rank: int, width: int, decades: float, seed: int = 0) -> np.ndarray:
    """Rows that mix directions whose strengths fall by `decades` powers of ten."""
    mix = np.linalg.qr(random(rank, rank, seed=seed + 1))[0] * np.logspace(0, -decades, rank)
    return (mix @ random(rank, width, seed=seed)).astype(np.float32)


def dense(update: Update) -> np.ndarray:
    product = update.B.astype(np.float64) @ update.A.astype(np.float64)
    return update.scale * (product if update.left is None else np.kron(update.left, product))


def assert_matches_dense(update: Update) -> ModuleProfile:
    found, delta = profile(update), dense(update)
    values = np.linalg.svd(delta, compute_uv=False)
    kept = found.singular_values
    np.testing.assert_allclose(kept, values[: len(kept)], rtol=0, atol=1e-5 * values[0])
    shares = values[values > 1e-14 * values[0]] / values.sum()
    entropy = -np.sum(shares * np.log(shares))
    expected = {
        "sigma_1": values[0],
        "frobenius": np.linalg.norm(delta),
        "energy_concentration": values[0] ** 2 / np.sum(values**2),
        "stable_rank": np.sum(values**2) / values[0] ** 2,
        "effective_rank": math.exp(entropy),
        "spectral_entropy": entropy,
    }
    assert {name: getattr(found, name) for name in expected} == pytest.approx(
        expected, rel=1e-4, abs=1e-9
    )
    centred = delta - delta.mean()
    kurtosis = np.mean(centred**4) / np.mean(centred**2) ** 2
    assert found.kurtosis == pytest.approx(kurtosis, rel=1e-4 if found.kurtosis_is_exact else 0.1)
    return found


@pytest.mark.parametrize(
    ("out", "into", "rank"),
    [
        (7, 5, 1),
        (64, 96, 4),
        (3, 500, 3),
        (384, 384, 8),
        (768, 640, 16),  # exact by tensor sums
        (600, 900, 32),  # kurtosis from rows
        (300, 700, 130),  # Gram matrices in single precision
        (20, 30, 40),  # rank above both sides
        (150, 400, 200),  # rank between them
    ],
)
@pytest.mark.parametrize("decades", [0.0, 2.0, 5.0])
def test_equals_the_dense_svd(out: int, into: int, rank: int, decades: float) -> None:
    A, B = decaying(rank, into, decades / 4), decaying(rank, out, decades, seed=5).T
    assert_matches_dense(Update("m", A, np.ascontiguousarray(B), scale=-0.5))


def test_rank_1024_on_a_narrow_module() -> None:
    found = assert_matches_dense(Update("m", random(1024, 384), random(320, 1024, seed=1)))
    assert found.rank == 1024
    assert len(found.singular_values) == 32


def test_double_precision_factors() -> None:
    rng = np.random.default_rng(3)
    A, B = rng.standard_normal((130, 700)), rng.standard_normal((260, 130))
    values = np.linalg.svd(B @ A, compute_uv=False)[:32]
    np.testing.assert_allclose(profile(Update("m", A, B)).singular_values, values, rtol=1e-9)


@pytest.mark.parametrize("into", [40, 700])
def test_kronecker_product(into: int) -> None:
    left = random(3, 2, seed=2) + 1
    found = assert_matches_dense(
        Update("m", random(4, into), random(450, 4, seed=1), 2.0, left=left)
    )
    assert found.shape == (1350, 2 * into)
    assert found.kurtosis_is_exact


def test_entries_with_a_large_mean() -> None:
    A, B = 5 + random(2, 90), 5 + random(80, 2, seed=1)
    assert assert_matches_dense(Update("m", A, B)).kurtosis_is_exact


@pytest.mark.parametrize(("out", "into"), [(1, 1), (5, 6), (700, 800)])
def test_equal_entries_have_no_kurtosis(out: int, into: int) -> None:
    found = profile(Update("m", np.ones((1, into), np.float32), np.ones((out, 1), np.float32)))
    assert found.kurtosis is None
    assert found.stable_rank == pytest.approx(1)


def test_plus_and_minus_one() -> None:
    signs = np.sign(random(1, 50)), np.sign(random(40, 1, seed=1))
    found = profile(Update("m", *signs))
    mean = np.mean(signs[0]) * np.mean(signs[1])
    # A two-point distribution with shares p and 1 - p has kurtosis 1 / (p (1 - p)) - 3.
    assert found.kurtosis == pytest.approx(4 / (1 - mean**2) - 3, rel=1e-5)


@pytest.mark.parametrize(("count", "exact"), [(1, True), (3, True), (20, False)])
def test_change_in_few_rows_is_seen(count: int, exact: bool) -> None:
    B = np.zeros((1500, 40), np.float32)
    B[1000 : 1000 + count] = random(count, 40)
    found = assert_matches_dense(Update("m", random(40, 250, seed=1), B))
    assert found.kurtosis_is_exact is exact


@pytest.mark.parametrize(
    ("A", "B", "scale"),
    [
        (random(4, 9), np.zeros((7, 4), np.float32), 1.0),
        (random(4, 9), random(7, 4), 0.0),
        (np.zeros((0, 9), np.float32), np.zeros((7, 0), np.float32), 1.0),
        (np.eye(4, 9, dtype=np.float32)[:2], np.zeros((7, 2), np.float32), 2.0),
    ],
)
def test_zero_update_has_zeros_and_no_ratios(A: np.ndarray, B: np.ndarray, scale: float) -> None:
    found = profile(Update("m", A, B, scale))
    assert (found.sigma_1, found.frobenius) == (0.0, 0.0)
    assert {getattr(found, name) for name in RATIOS} == {None}
    assert not any(found.singular_values)


def test_factors_that_cancel_are_a_zero_update() -> None:
    # B reads only the first two inner dimensions, A writes only the last two.
    A, B = random(4, 900), random(800, 4)
    A[:2], B[:, 2:] = 0, 0
    assert profile(Update("m", A, B)).sigma_1 == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["A", "B", "left", "scale"])
def test_non_finite_gives_none(bad: float, where: str) -> None:
    A, B, left = random(4, 9), random(7, 4), random(2, 2)
    for name, factor in (("A", A), ("B", B), ("left", left)):
        if name == where:
            factor[1, 1] = bad
    found = profile(Update("m", A, B, bad if where == "scale" else 1.0, left=left))
    assert {getattr(found, name) for name in FIGURES} == {None}
    assert found.singular_values == []


@pytest.mark.parametrize("exponent", [-44, -38, -30, -12, 12, 30, 37])
@pytest.mark.parametrize("rank", [3, 140])
def test_any_magnitude_of_single_precision(exponent: int, rank: int) -> None:
    A, B = random(rank, 600) / 5, random(700, rank, seed=1)
    if exponent == -44:  # subnormal: exact only for powers of two
        A = np.sign(A)
    tiny = (A * np.float64(2.0) ** round(exponent * math.log2(10))).astype(np.float32)
    expected = profile(Update("m", A, B))
    for update in (Update("m", tiny, B), Update("m", B.T.copy(), tiny.T.copy())):
        found = profile(update)
        assert found.stable_rank == pytest.approx(expected.stable_rank, rel=1e-4)
        assert found.effective_rank == pytest.approx(expected.effective_rank, rel=1e-4)
        ratio = 2.0 ** round(exponent * math.log2(10))
        assert found.sigma_1 == pytest.approx(expected.sigma_1 * ratio, rel=1e-4)
        assert found.kurtosis == pytest.approx(expected.kurtosis, rel=0.1)


def test_norm_beyond_double_precision_gives_none() -> None:
    A, B = np.full((1, 3), 1e200), np.full((3, 1), 1e200)
    assert profile(Update("m", A, B)).frobenius is None


def test_names_come_from_the_module_path() -> None:
    found = profile(Update("model.layers.3.self_attn.q_proj", random(2, 5), random(4, 2)))
    assert (found.layer, found.role) == ("model.layers.3", "self_attn.q_proj")
    assert (found.shape, found.rank) == ((4, 5), 2)
