"""Every figure depends on the update alone: other factors of it, other orders, other scales."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


@st.composite
def updates(draw: st.DrawFn) -> Update:
    """Shapes for all roads to the kurtosis: by rows, by tensor sums, estimated."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    out, into, rank = draw(
        st.sampled_from([(30, 20, 3), (50, 70, 1), (9, 14, 12), (700, 600, 6), (500, 900, 30)])
    )
    decay = np.logspace(0, -draw(st.floats(0, 2)), rank)
    A, B = rng.standard_normal((rank, into)), rng.standard_normal((out, rank)) * decay
    B[: out // 8] *= draw(st.floats(1, 6))  # some rows stronger than others, as in real adapters
    left = rng.standard_normal((2, 3)) if draw(st.booleans()) else None
    return Update("m", A, B, draw(st.floats(0.01, 100)), left=left)


def changed(update: Update, **changes: object) -> Update:
    names = ("module", "A", "B", "scale", "exactness", "left")
    return Update(**({name: getattr(update, name) for name in names} | changes))  # type: ignore[arg-type]


def assert_same(found: ModuleProfile, expected: ModuleProfile, rel: float = 1e-4) -> None:
    assert found.kurtosis_is_exact == expected.kurtosis_is_exact
    for name in ("sigma_1", "frobenius", *RATIOS):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=rel, abs=1e-6)
    length = min(len(found.singular_values), len(expected.singular_values))
    np.testing.assert_allclose(
        found.singular_values[:length],
        expected.singular_values[:length],
        rtol=0,
        atol=rel * expected.sigma_1,
    )


quick = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(update=updates(), seed=st.integers(0, 2**32 - 1), decades=st.floats(0, 2))
def test_change_of_gauge(update: Update, seed: int, decades: float) -> None:
    rng, rank = np.random.default_rng(seed), len(update.A)
    turn = np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    M = turn * np.logspace(0, -decades, rank) @ np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    other = changed(update, A=M @ update.A, B=update.B @ np.linalg.inv(M))
    assert_same(profile(other), profile(update))


@quick
@given(update=updates(), split=st.floats(0.001, 1000), negate=st.booleans())
def test_scale_split_between_alpha_and_factors(update: Update, split: float, negate: bool) -> None:
    sign = -1 if negate else 1
    other = changed(update, A=update.A * split, scale=sign * update.scale / split)
    assert_same(profile(other), profile(update))


@quick
@given(update=updates(), extra=st.integers(1, 20), place=st.sampled_from("AB"))
def test_padding_of_the_rank(update: Update, extra: int, place: str) -> None:
    rng = np.random.default_rng(extra)
    A = np.concatenate([update.A, rng.standard_normal((extra, update.A.shape[1]))])
    B = np.concatenate([update.B, rng.standard_normal((update.B.shape[0], extra))], axis=1)
    rank = len(update.A)
    A[rank:] *= place == "B"
    B[:, rank:] *= place == "A"
    assert_same(profile(changed(update, A=A, B=B)), profile(update))


@quick
@given(update=updates(), seed=st.integers(0, 2**32 - 1))
def test_order_of_the_inner_dimension(update: Update, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(update.A))
    other = changed(update, A=update.A[order], B=update.B[:, order])
    assert_same(profile(other), profile(update))


@quick
@given(update=updates(), dtype=st.sampled_from([np.float32, np.float16]))
def test_casts_stay_within_the_dtype(update: Update, dtype: type[np.floating]) -> None:
    other = changed(
        update,
        A=update.A.astype(dtype).astype(np.float32),
        B=update.B.astype(dtype).astype(np.float32),
    )
    expected = profile(update)
    # An estimate may look at another row after a cast; its error is about a per cent.
    estimate = dtype == np.float16 and not expected.kurtosis_is_exact
    if estimate:
        kurtosis = profile(other).kurtosis
        assert kurtosis == pytest.approx(expected.kurtosis, rel=0.05)
    else:
        assert_same(profile(other), expected, rel=1e-4 if dtype == np.float32 else 0.01)


@quick
@given(update=updates(), factor=st.floats(0.001, 1000))
def test_scaling_moves_norms_and_no_ratio(update: Update, factor: float) -> None:
    before, after = profile(update), profile(changed(update, scale=-update.scale * factor))
    for name in ("sigma_1", "frobenius"):
        assert getattr(after, name) == pytest.approx(factor * getattr(before, name), rel=1e-9)
    for name in RATIOS:
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-9)
