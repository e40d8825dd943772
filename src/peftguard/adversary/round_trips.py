"""Rounding: the factors as a smaller number format holds them."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from peftguard.adversary.arithmetic import Float32, changed, with_factors
from peftguard.adversary.evasion import Evasion, Means, Parts
from peftguard.mitigation.factored import Factored, Layer
from peftguard.padbench.training.nf4 import BLOCK, LEVELS


class RoundTrip(Evasion):
    """Both factors of every layer, there and back."""

    @abstractmethod
    def rounded(self, factor: Float32) -> Float32:
        """What comes back."""

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""

        def back(layer: Layer) -> Layer:
            return with_factors(layer, self.rounded(layer.B), self.rounded(layer.A))

        return (changed(adapter, back),)


class Half(RoundTrip):
    """Half precision."""

    name = "fp16"
    about = "rounded to half precision"

    def rounded(self, factor: Float32) -> Float32:
        """As of `RoundTrip.rounded`."""
        return factor.astype(np.float16).astype(np.float32)


class Int8(RoundTrip):
    """Eight bits: 255 even steps up to the largest entry of a row."""

    name = "int8"
    about = "rounded to 8 bits, a scale a row"

    def rounded(self, factor: Float32) -> Float32:
        """As of `RoundTrip.rounded`."""
        steps = np.maximum(np.abs(factor).max(axis=1, keepdims=True, initial=0.0), 1e-30) / 127
        back: Float32 = (np.round(factor / steps) * steps).astype(np.float32)
        return back


class Nf4(RoundTrip):
    """Four bits: quantiles of the normal distribution, up to the largest entry of a block of 64."""

    name = "nf4"
    about = "rounded to 4 bits, as QLoRA rounds its base"

    def rounded(self, factor: Float32) -> Float32:
        """As of `RoundTrip.rounded`."""
        levels = np.array(LEVELS, np.float32)
        flat = np.pad(factor.ravel(), (0, -factor.size % BLOCK)).reshape(-1, BLOCK)
        sizes = np.maximum(np.abs(flat).max(axis=1, keepdims=True, initial=0.0), 1e-30)
        nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, flat / sizes)
        back: Float32 = (levels[nearest] * sizes).ravel()[: factor.size].reshape(factor.shape)
        return back
