"""What the updates themselves show: values that cannot be, scales that are extreme, odd modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peftguard.features.outliers import standing_out
from peftguard.features.profile import ModuleProfile
from peftguard.findings import Finding, found
from peftguard.verdict.checks.files import listed

MAX_SCALE = 128.0
"""Scales in use go from 0.5 to 32 (alpha 32 at rank 1); MLX's default is 20."""
MIN_SCALE = 1.0 / 128
RANK_ONE = 0.995
"""Share of the energy in one direction from which rank 4 or more counts as rank one."""


def check_weights(profiles: Sequence[ModuleProfile]) -> Iterator[Finding]:
    """Findings about the updates, one a kind; the first module stands for the rest."""
    partial = [profile for profile in profiles if profile.exactness == "direction"]
    yield from _of(
        "method.partial", partial, "DoRA's direction is exact, its magnitude needs the base:"
    )
    broken = [profile for profile in profiles if profile.frobenius is None]
    yield from _of("integrity.non-finite", broken, "NaN or infinite values in")
    zero = [profile for profile in profiles if profile.frobenius == 0]
    if profiles and len(zero) == len(profiles):
        yield found("integrity.zero-update", f"all {len(zero)} updates are exactly zero")
    else:
        yield from _of("integrity.zero-update", zero, "exactly zero in")
    yield from _check_scales(profiles)
    single = [p for p in profiles if p.rank >= 4 and (p.energy_concentration or 0) > RANK_ONE]
    yield from _of(
        "weights.rank-one", single, f"over {RANK_ONE:.1%} of the energy in one direction:"
    )
    for profile, figure, z in standing_out(list(profiles)):
        message = f"{profile.module}: {figure} is {abs(z):.1f} deviations from its peers"
        yield found("weights.outlier-module", message, module=profile.module)


def _check_scales(profiles: Sequence[ModuleProfile]) -> Iterator[Finding]:
    extreme = [p for p in profiles if not MIN_SCALE <= p.scale <= MAX_SCALE]
    if extreme:
        first = extreme[0]
        message = f"the update is multiplied by {first.scale:g} in {listed(_names(extreme), 3)}"
        yield found("integrity.alpha-extreme", message, module=first.module)


def _of(code: str, profiles: Sequence[ModuleProfile], what: str) -> Iterator[Finding]:
    if profiles:
        yield found(code, f"{what} {listed(_names(profiles), 3)}", module=profiles[0].module)


def _names(profiles: Sequence[ModuleProfile]) -> list[str]:
    return [profile.module for profile in profiles]
