"""One module's update -> its profile: exact spectrum and entry kurtosis, all from the factors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from peftguard.adapters.update import Update
from peftguard.features.kurtosis import kurtosis
from peftguard.features.profile import ModuleProfile
from peftguard.features.singular import Core, Float64, core_of, largest_entry

_KEPT_VALUES = 32


def profile(update: Update) -> ModuleProfile:
    """Describe one update.

    Every figure depends on `scale * kron(left, B @ A)` alone, not on how it is factored, and
    nothing of that product's size is allocated. NaN or infinite entries, or a norm beyond double
    precision, give None throughout; a zero update gives zeros and no ratios. Neither raises.
    """
    core = core_of(update.B, update.A)
    values = None if core is None else _singular_values(update, core)
    if core is None or values is None:
        return _profile(update)
    kept = values[:_KEPT_VALUES].tolist()
    if not values.any():
        return _profile(update, sigma_1=0.0, frobenius=0.0, singular_values=kept)
    shape, exact = kurtosis(core, update.left)
    return _profile(
        update,
        **spectral_figures(values),
        kurtosis=shape,
        kurtosis_is_exact=exact,
        singular_values=kept,
    )


def _singular_values(update: Update, core: Core) -> Float64 | None:
    """Of the whole update, descending; None if not finite."""
    values, size = core.values, abs(update.scale) * core.size
    if update.left is not None:
        largest = largest_entry(update.left)
        if not math.isfinite(largest):
            return None
        if largest > 0:
            left = np.linalg.svd(update.left.astype(np.float64) / largest, compute_uv=False)
            values = np.sort(np.outer(left, values), axis=None)[::-1]
        size *= largest
    # Python's floats overflow to infinity without a warning; the Frobenius norm is below this.
    if not math.isfinite(size * float(values.sum())):
        return None
    return values * size


def spectral_figures(values: Float64) -> dict[str, float]:
    """Figures of `ModuleProfile` that singular values give, (r,) descending, not all zero."""
    relative = values / values[0]
    energy = float(np.sum(relative**2))
    shares = relative[relative > 0] / np.sum(relative)
    entropy = max(0.0, -float(np.sum(shares * np.log(shares))))
    return {
        "sigma_1": float(values[0]),
        "frobenius": float(values[0]) * math.sqrt(energy),
        "energy_concentration": 1 / energy,
        "spectral_entropy": entropy,
        "effective_rank": math.exp(entropy),
        "stable_rank": energy,
    }


def _profile(update: Update, **figures: Any) -> ModuleProfile:
    unknown = dict.fromkeys(
        name for name, field in ModuleProfile.model_fields.items() if field.is_required()
    )
    about = {
        "module": update.module,
        "layer": update.layer,
        "role": update.role,
        "shape": update.shape,
        "rank": update.rank,
        "scale": update.scale,
        "exactness": update.exactness,
    }
    return ModuleProfile(**(unknown | about | figures))
