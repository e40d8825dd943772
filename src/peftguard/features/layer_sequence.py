"""An adapter as a sequence of layers: figures of each module's spectrum, by the role it has there.

Nothing depends on widths or names of a base model, so sequences of different bases compare.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.update import Update
from peftguard.features.kurtosis import kurtosis
from peftguard.features.order import by_layer
from peftguard.features.roles import ROLES, role_of
from peftguard.features.singular import core_of
from peftguard.features.weights import Factors, Float32, Weights

TOP = 8
"""Largest singular values kept."""
N_FIGURES = 9 + TOP


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
    updates = [Update(name, own.A, own.B) for name, own in adapter.modules.items()]
    layers = sorted({update.layer or "" for update in updates}, key=by_layer) or [""]
    sums = np.zeros((len(layers), len(ROLES), N_FIGURES))
    counts = np.zeros((len(layers), len(ROLES), 1))
    for update in updates:
        place = layers.index(update.layer or ""), ROLES.index(role_of(update.role))
        sums[place] += figures_of(adapter.modules[update.module])
        counts[place] += 1
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
    energy = float(np.sum(values**2))
    shares = values[values > 0] / values.sum()
    entropy = float(-np.sum(shares * np.log(shares)))
    top = np.zeros(TOP)
    top[: len(values)] = values[:TOP]
    norms = [energy, values.sum(), np.sqrt(energy), values[0], kurtosis(core)[0] or 0.0]
    ranks = [values[0] ** 2 / energy, energy / values[0] ** 2, entropy, np.exp(entropy)]
    return np.concatenate([np.log1p([*norms, *top]), ranks])
