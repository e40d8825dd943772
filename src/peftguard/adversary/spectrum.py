"""Spectrum matching: the directions of the adapter with the singular values of a benign twin."""

from __future__ import annotations

import numpy as np

from peftguard.adversary.arithmetic import changed, with_factors
from peftguard.adversary.evasion import Evasion, Means, Need, Parts
from peftguard.errors import UnsupportedAdapter
from peftguard.features.singular import decomposed
from peftguard.mitigation.factored import Factored, Layer


class SpectrumMatch(Evasion):
    """Aimed at detectors that read spectra and norms alone: those then see the twin."""

    name = "spectrum"
    about = "singular values moved to those of a benign twin"
    strength = "how far, 1 is all the way"
    strengths = (0.5, 1.0)
    needs = frozenset({Need.TWIN})

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""
        twin = means.the_twin()

        def matched(layer: Layer) -> Layer:
            if layer.module not in twin.layers:
                raise UnsupportedAdapter("the twin lacks a layer", key=layer.module)
            other = twin.layers[layer.module]
            left, values, right = decomposed(layer.B, layer.A)
            wanted = np.zeros_like(values)
            theirs = decomposed(other.B, other.A)[1][: len(values)]
            wanted[: len(theirs)] = theirs * abs(other.scale / layer.scale)
            root = np.sqrt((1 - strength) * values + strength * wanted)
            return with_factors(layer, left * root, root[:, None] * right)

        return (changed(adapter, matched),)
