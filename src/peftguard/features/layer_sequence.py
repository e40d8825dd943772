"""An adapter as a sequence of layers: figures of each module's spectrum, by the role it has there.

Nothing depends on widths or names of a base model, so sequences of different bases compare.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.update import place_of
from peftguard.features.kurtosis import kurtosis
from peftguard.features.order import by_layer
from peftguard.features.roles import ROLES, role_of
from peftguard.features.singular import core_of
from peftguard.features.spectrum import spectral_figures
from peftguard.features.weights import Factors, Float32, Weights

TOP = 8
"""Largest singular values kept."""
N_FIGURES = 9 + TOP
_AS_THEY_ARE = "energy_concentration", "stable_rank", "spectral_entropy", "effective_rank"


class LayerSequence(NamedTuple):
    """Figures by layer and role, and where there are any.

    Args:
        figures: (layers, roles, `N_FIGURES`) float32, zero where the mask is.
        mask: (layers, roles) 1 where the adapter changes such a module, else 0; float32.
    """

    figures: Float32
    mask: Float32


def layer_sequence(adapter: Weights) -> LayerSequence:
    """Layers in the order of their numbers; modules of no layer make one of their own.

    Modules of one layer and role (experts, self- and cross-attention) are averaged.
    """
    places = {name: place_of(name) for name in adapter.modules}
    layers = sorted({place.layer or "" for place in places.values()}, key=by_layer) or [""]
    sums = np.zeros((len(layers), len(ROLES), N_FIGURES))
    counts = np.zeros((len(layers), len(ROLES), 1))
    for name, place in places.items():
        cell = layers.index(place.layer or ""), ROLES.index(role_of(place.role))
        sums[cell] += figures_of(adapter.modules[name])
        counts[cell] += 1
    figures = sums / np.maximum(counts, 1)
    return LayerSequence(figures.astype(np.float32), (counts[:, :, 0] > 0).astype(np.float32))


def figures_of(factors: Factors) -> NDArray[np.float64]:
    """(`N_FIGURES`,) of one update, all from its singular values s and the moments of its entries.

    log(1 + x) of: energy, sum s^2; norms L1, L2, L-infinity of s; kurtosis; and of the `TOP`
    largest s, zero beyond the rank. As they are: concentration (share of the largest in the
    energy), stable rank, entropy and effective rank of s / sum s. A zero update has zeros.
    """
    core = core_of(factors.B, factors.A)
    if core is None or not core.values.any():
        return np.zeros(N_FIGURES)
    values = core.values * core.size
    own = spectral_figures(values)
    top = np.zeros(TOP)
    top[: len(values)] = values[:TOP]
    norms = [own["frobenius"] ** 2, values.sum(), own["frobenius"], own["sigma_1"]]
    ranks = [own[name] for name in _AS_THEY_ARE]
    return np.concatenate([np.log1p([*norms, kurtosis(core)[0] or 0.0, *top]), ranks])
