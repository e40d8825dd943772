"""Marks against a robust z worked out by hand, and groups that are too small for one."""

from __future__ import annotations

import math

import pytest

from peftguard.features.outliers import FIGURES, STANDS_OUT, mark, standing_out
from peftguard.features.profile import ModuleProfile


def module(
    name: str, role: str = "q", shape: tuple[int, int] = (8, 8), **figures: float | None
) -> ModuleProfile:
    return ModuleProfile(
        module=name,
        layer=None,
        role=role,
        shape=shape,
        rank=2,
        scale=1.0,
        exactness="exact",
        **(dict.fromkeys((*FIGURES, "energy_concentration", "spectral_entropy"), 1.0) | figures),
    )


def with_sigma(role: str, *logarithms: float) -> list[ModuleProfile]:
    return [
        module(f"{role}.{i}", role, sigma_1=math.exp(value)) for i, value in enumerate(logarithms)
    ]


def test_z_is_distance_from_the_median_in_scaled_deviations() -> None:
    marked = mark(with_sigma("q", 0.0, 1.0, 2.0, 3.0, 12.0))
    # Median 2, absolute deviations 2 1 0 1 10 with median 1.
    expected = [abs(x - 2) / 1.4826 for x in (0, 1, 2, 3, 12)]
    assert [profile.outlier_z for profile in marked] == pytest.approx(expected)


def test_input_is_left_alone_and_order_kept() -> None:
    given = with_sigma("q", 0, 1, 2, 3)
    marked = mark(given)
    assert [profile.module for profile in marked] == [profile.module for profile in given]
    assert {profile.outlier_z for profile in given} == {None}


def test_roles_are_not_mixed() -> None:
    marked = mark([*with_sigma("q", 0, 1, 2, 3), *with_sigma("v", 100, 101, 102, 103)])
    assert max(profile.outlier_z or 0 for profile in marked) < 2


def test_few_of_a_role_are_compared_with_the_same_shape() -> None:
    lone = module("lone", "o", sigma_1=math.exp(30))
    other_shape = module("other", "down", (8, 32), sigma_1=math.exp(30))
    *_, first, second = mark([*with_sigma("q", 0, 1, 2, 3), lone, other_shape])
    assert first.outlier_z is not None
    assert first.outlier_z > STANDS_OUT
    assert second.outlier_z is None


def test_too_few_of_everything_have_no_mark() -> None:
    assert {profile.outlier_z for profile in mark(with_sigma("q", 0, 1, 50))} == {None}
    assert mark([]) == []


def test_zero_and_non_finite_modules_are_no_peers() -> None:
    blank = dict.fromkeys((*FIGURES, "energy_concentration", "spectral_entropy"))
    zero = module("zero", **(blank | {"sigma_1": 0.0, "frobenius": 0.0}))
    nan = module("nan", **blank)
    plain = with_sigma("q", 0, 1, 2, 3)
    marked = mark([*plain, zero, nan])
    assert marked[:4] == mark(plain)
    assert [profile.outlier_z for profile in marked[4:]] == [None, None]


def test_nearly_equal_modules_do_not_stand_out() -> None:
    assert standing_out(with_sigma("q", 0, 1e-9, 2e-9, 3e-9, 0.02), 1.0) == []


def test_standing_out_names_the_farthest_figure_first_and_signs_it() -> None:
    peers = [module(f"peer.{i}", sigma_1=1 + i / 10, kurtosis=3 + i / 10) for i in range(6)]
    low = module("low", kurtosis=1e-4)
    high = module("high", sigma_1=1e30, kurtosis=9.0)
    found = standing_out([*peers, low, high], 5.0)
    assert [(outlier.profile.module, outlier.figure) for outlier in found] == [
        ("high", "sigma_1"),
        ("low", "kurtosis"),
    ]
    assert found[0].z > 5
    assert found[1].z < -5
    marks = {profile.module: profile.outlier_z for profile in mark([*peers, low, high])}
    assert marks["low"] == pytest.approx(-found[1].z)
