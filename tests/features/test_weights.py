"""What a detector gets of an adapter is the update that its files say, and nothing non-finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftguard.adapters.adapter import open_adapter
from peftguard.adapters.update import Update
from peftguard.errors import MalformedFile
from peftguard.features.weights import factors_of, weights_from, weights_of


def test_folder_to_factors(make_adapter: Callable[..., Path], tensors: Callable[..., dict]) -> None:
    with open_adapter(make_adapter(config={"lora_alpha": 12})) as adapter:
        weights = weights_of(adapter)
    assert (weights.base_model, weights.peft_type, weights.rank) == ("org/base", "LORA", 4)
    assert len(weights.modules) == 6
    stored = tensors()
    for module, factors in weights.modules.items():
        key = f"base_model.model.{module}.lora_{{}}.weight"
        expected = 3.0 * stored[key.format("B")] @ stored[key.format("A")]  # alpha / r = 3
        np.testing.assert_allclose(factors.B @ factors.A, expected, rtol=1e-5, atol=1e-5)
        assert weights.shapes[module] == factors.shape == (24, 24)
        assert factors.A.dtype == factors.B.dtype == np.float32


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    left=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    shape=st.tuples(st.integers(1, 6), st.integers(0, 3), st.integers(1, 6)),
    scale=st.floats(-5, 5),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_kronecker_factor_is_folded_in(
    seed: int, left: tuple[int, int], shape: tuple[int, int, int], scale: float, dtype: type
) -> None:
    rng = np.random.default_rng(seed)
    out, rank, into = shape
    B, A = rng.normal(size=(out, rank)).astype(dtype), rng.normal(size=(rank, into)).astype(dtype)
    update = Update("m", A, B, scale, left=rng.normal(size=left).astype(dtype))
    factors = factors_of(update)
    assert factors.shape == update.shape
    expected = scale * np.kron(update.left, B @ A)  # type: ignore[arg-type]
    np.testing.assert_allclose(factors.B @ factors.A, expected, rtol=1e-4, atol=1e-4)


def test_two_updates_of_a_module() -> None:
    update = Update("layer.0.q", np.ones((1, 3)), np.ones((2, 1)))
    with pytest.raises(MalformedFile, match=r"a\.safetensors: layer\.0\.q: .*several"):
        weights_from([update, update], name="a.safetensors")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("factor", ["A", "B"])
def test_entries_that_are_not_finite(bad: float, factor: str) -> None:
    factors = {"A": np.ones((1, 3)), "B": np.ones((2, 1))}
    factors[factor][0, 0] = bad
    with pytest.raises(MalformedFile, match="not finite"):
        weights_from([Update("m", factors["A"], factors["B"])], name="a")


@given(st.integers(0, 1000), st.floats(-20, 20), st.sampled_from([1.0, 1e-4, 1e4]))
@settings(deadline=None, max_examples=40)
def test_one_form_whatever_the_factors(seed: int, decades: float, mixed: float) -> None:
    rng = np.random.default_rng(seed)
    B, A = rng.normal(size=(7, 3)), rng.normal(size=(3, 5))
    mix = np.linalg.qr(rng.normal(size=(3, 3)))[0] * np.geomspace(1, mixed, 3) * 10.0**decades
    padded = np.hstack([B @ np.linalg.inv(mix), np.zeros((7, 2))]), np.vstack([mix @ A, A[:2]])
    plain = factors_of(Update("q", A, B, scale=2.0))
    other = factors_of(Update("q", padded[1], padded[0] * 4, scale=0.5))
    assert other.B.shape == plain.B.shape == (7, 3)
    np.testing.assert_allclose(other.B @ other.A, 2 * B @ A, atol=1e-4)
    np.testing.assert_allclose(
        np.linalg.norm(other.B, axis=0), np.linalg.norm(other.A, axis=1), rtol=1e-5
    )
    np.testing.assert_allclose(
        np.linalg.norm(other.B, axis=0), np.linalg.norm(plain.B, axis=0), rtol=1e-5
    )
