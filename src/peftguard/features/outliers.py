"""Which modules stand apart from their peers within one adapter."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import median
from typing import NamedTuple

from peftguard.features.profile import ModuleProfile

FIGURES = ("sigma_1", "frobenius", "stable_rank", "effective_rank", "kurtosis")
"""What is compared, by logarithm; the other figures are functions of these."""
FEWEST_PEERS = 4
"""Members that a group needs for its median to mean anything."""
STANDS_OUT = 12.0
"""Robust z worth a finding: above every one of 1,034 modules of 32 adapters found in the wild.

At 8, 0.5 % of those modules would be named, in one adapter of eight; at 3.5, 6 %, in most
(`benchmarks/wild.py`).
"""
_LEAST_SPREAD = 0.05  # modules within some 5 % of each other do not differ, however alike the rest

Scores = dict[str, float]


class Outlier(NamedTuple):
    """A module, the figure that sets it apart most, and by how many robust standard deviations."""

    profile: ModuleProfile
    figure: str
    z: float


class _Typical(NamedTuple):
    centre: float
    spread: float

    @classmethod
    def of(cls, values: Sequence[float]) -> _Typical:
        """Median, and the median absolute deviation in units of a Gaussian's standard deviation."""
        centre = median(values)
        deviation = 1.4826 * median([abs(value - centre) for value in values])
        return cls(centre, max(deviation, _LEAST_SPREAD))


def mark(profiles: Sequence[ModuleProfile]) -> list[ModuleProfile]:
    """Copies with `outlier_z`: the largest absolute robust z of a module's figures.

    Each figure is compared with those of modules of the same role, or where these are fewer than
    `FEWEST_PEERS`, with those of the same shape; None where there are too few of either.
    """
    return [
        profile.model_copy(
            update={"outlier_z": max((abs(z) for z in scores.values()), default=None)}
        )
        for profile, scores in zip(profiles, _scores(profiles), strict=True)
    ]


def standing_out(profiles: Sequence[ModuleProfile], threshold: float = STANDS_OUT) -> list[Outlier]:
    """Modules with a figure at least `threshold` robust z away from their peers, farthest first.

    Each is named once, with its farthest figure; z is negative where the figure is low.
    """
    outliers = []
    for profile, scores in zip(profiles, _scores(profiles), strict=True):
        figure = max(scores, key=lambda name: abs(scores[name]), default=None)
        if figure is not None and abs(scores[figure]) >= threshold:
            outliers.append(Outlier(profile, figure, scores[figure]))
    return sorted(outliers, key=lambda outlier: -abs(outlier.z))


def _scores(profiles: Sequence[ModuleProfile]) -> list[Scores]:
    """Robust z of every figure of every module, as far as it has peers."""
    figures = [_logarithms(profile) for profile in profiles]
    by_role = _typical([profile.role for profile in profiles], figures)
    by_shape = _typical([profile.shape for profile in profiles], figures)
    return [
        {
            name: (value - typical[name].centre) / typical[name].spread
            for name, value in own.items()
            for typical in (by_shape[profile.shape] | by_role[profile.role],)
            if name in typical
        }
        for profile, own in zip(profiles, figures, strict=True)
    ]


def _logarithms(profile: ModuleProfile) -> Scores:
    figures = ((name, getattr(profile, name)) for name in FIGURES)
    return {name: math.log(value) for name, value in figures if value is not None and value > 0}


def _typical(
    groups: Sequence[Hashable], figures: Sequence[Scores]
) -> dict[Hashable, dict[str, _Typical]]:
    """Centre and spread of each figure within each group that has enough members with it."""
    values: dict[Hashable, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for group, own in zip(groups, figures, strict=True):
        for name, value in own.items():
            values[group][name].append(value)
    return {
        group: {
            name: _Typical.of(members)
            for name, members in named.items()
            if len(members) >= FEWEST_PEERS
        }
        for group, named in values.items()
    }
