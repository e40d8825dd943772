"""How far an adapter is from those that a detector knows, measured on its weights.

Two distances, both unchanged by refactoring an update, both to the nearest known adapters:

- figures: size, concentration and effective rank of every module's update, standardised.
- direction: 1 - cosine between updates, module by module, from small random sketches. Adapters of
  one task share directions; of unrelated ones the cosine is near zero.

Each has a limit: the quantile that all but a chosen share of held-out benign adapters stay below.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftguard.features.inner_product import Site
from peftguard.features.singular import core_of
from peftguard.features.weights import Factors, Weights

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

N_FIGURES = 3
_NEIGHBOURS = 3
_SKETCH_NUMBERS = 2048
"""About as many numbers describe the directions of one adapter."""
_LEAST_SPREAD = 0.05
"""Figures are logarithms: closer than this they are not told apart."""
_LEAST_NORM = 1e-30


class Distances(NamedTuple):
    """Of one adapter to the nearest known ones."""

    figures: float
    direction: float


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is kept of n known adapters over s places.

    Args:
        mean: (3 s,) float32, of the figures.
        spread: (3 s,) float32, their standard deviation.
        figures: (n, 3 s) float32, standardised.
        sketches: (n, s, m, m) float16, of norm 1 a place, zero where an adapter has no update.
    """

    mean: Float32
    spread: Float32
    figures: Float32
    sketches: NDArray[np.float16]

    def distances(self, adapter: Weights, sites: Sequence[Site]) -> Distances:
        """How far an adapter is from the nearest of the known ones."""
        figures = (figures_of(adapter, sites) - self.mean) / self.spread
        apart = np.sqrt(np.mean((self.figures - figures) ** 2, axis=1, dtype=np.float64))
        sketch = sketch_of(adapter, sites)
        places = max(1, int(np.any(sketch, axis=(1, 2)).sum()))
        known = self.sketches.reshape(len(self.sketches), -1).astype(np.float32)
        cosines = known @ sketch.ravel() / places
        return Distances(_of_nearest(apart), _of_nearest(1.0 - cosines))


def know(adapters: Sequence[Weights], sites: Sequence[Site]) -> Known:
    """Figures and sketches of at least one adapter, to compare others with."""
    figures = np.array([figures_of(adapter, sites) for adapter in adapters])
    mean = figures.mean(axis=0)
    spread = np.maximum(figures.std(axis=0), _LEAST_SPREAD)
    sketches = np.array([sketch_of(adapter, sites) for adapter in adapters], dtype=np.float16)
    return Known(mean, spread, (figures - mean) / spread, sketches)


def limit_of(distances: Sequence[float], share: float) -> tuple[float, float]:
    """The conformal limit that a fresh distance exceeds with probability `share` at most.

    Where there are too few distances to promise that, the largest is taken.

    Returns:
        The limit, and the share that it really promises, 1 / (n + 1) at least.
    """
    ordered = np.sort(np.asarray(distances, dtype=np.float64))
    place = min(len(ordered), math.ceil((len(ordered) + 1) * (1 - share)))
    return float(ordered[place - 1]), 1 - place / (len(ordered) + 1)


def figures_of(adapter: Weights, sites: Sequence[Site]) -> Float32:
    """(3 s,) logarithms of norm, stable rank and effective rank a place; 0 without an update."""
    figures = np.zeros((len(sites), N_FIGURES), np.float32)
    for place, site in enumerate(sites):
        factors = site.factors(adapter)
        if factors is not None:
            figures[place] = _figures(factors)
    return figures.ravel()


def sketch_of(adapter: Weights, sites: Sequence[Site]) -> Float32:
    """(s, m, m) U^T B A V of every place with fixed random signs U and V, scaled to norm 1."""
    width = sketch_width(len(sites))
    sketches = np.zeros((len(sites), width, width), np.float32)
    for place, site in enumerate(sites):
        factors = site.factors(adapter)
        if factors is None:
            continue
        left = _signs(site, "out", width).T @ factors.B
        sketch = left.astype(np.float64) @ (factors.A @ _signs(site, "in", width))
        norm = float(np.linalg.norm(sketch))
        if norm > 0 and math.isfinite(norm):
            sketches[place] = sketch / norm
    return sketches


def sketch_width(n_sites: int) -> int:
    """m, so that all places together take about as many numbers whatever the model."""
    return int(np.clip(round(math.sqrt(_SKETCH_NUMBERS / max(1, n_sites))), 4, 16))


def _figures(factors: Factors) -> tuple[float, float, float]:
    core = core_of(factors.B, factors.A)
    values = np.zeros(1) if core is None else core.values * core.size
    norm = float(np.linalg.norm(values))
    if not norm > _LEAST_NORM:
        return math.log(_LEAST_NORM), 0.0, 0.0
    shares = (values / norm) ** 2
    entropy = -float(np.sum(shares * np.log(np.maximum(shares, _LEAST_NORM))))
    return math.log(norm), -math.log(float(shares[0])), entropy


def _signs(site: Site, side: str, width: int) -> Float32:
    """(out or in, m) signs that depend on nothing but the place.

    Bits of the generator itself, which numpy keeps the same for ever, unlike its distributions.
    """
    length = site.shape[0] if side == "out" else site.shape[1]
    generator = np.random.PCG64(zlib.crc32(f"{side} {site.module}".encode()))
    raw = generator.random_raw(-(-length * width // 64)).astype("<u8")
    bits = np.unpackbits(raw.view(np.uint8), count=length * width)
    return (2.0 * bits.reshape(length, width) - 1.0).astype(np.float32)


def _of_nearest(distances: NDArray[np.floating]) -> float:
    nearest = np.sort(distances)[:_NEIGHBOURS]
    return float(np.mean(nearest, dtype=np.float64))
