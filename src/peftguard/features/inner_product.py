"""Exact inner products between the updates of adapters, from their factors.

<B_i A_i, B_j A_j> = sum of (B_i^T B_j) * (A_i A_j^T): two small products, whatever the width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftguard.features.weights import Factors, Weights

Float64 = NDArray[np.float64]

_MOST_COLUMNS = 4096
"""Ranks side by side in one product: bounds a block at 64 MiB."""


class Site(NamedTuple):
    """A place that adapters can change: modules of one name but other widths are other places."""

    module: str
    shape: tuple[int, int]

    def factors(self, adapter: Weights) -> Factors | None:
        """The adapter's update here; None if it has none, or one of rank 0."""
        own = adapter.modules.get(self.module)
        return own if own is not None and own.shape == self.shape and len(own.A) else None


def sites_of(adapters: Sequence[Weights]) -> list[Site]:
    """Every place that any of them changes, in order of appearance."""
    sites = (Site(*item) for adapter in adapters for item in adapter.shapes.items())
    return list(dict.fromkeys(sites))


def inner_products(left: Sequence[Weights], right: Sequence[Weights], site: Site) -> Float64:
    """(n, m) inner products of the updates at one place; 0 where either adapter has none.

    Sums are single precision within one pair of adapters, so relative errors are about 1e-6.
    """
    products = np.zeros((len(left), len(right)))
    for rows in blocks_of(left, site):
        for columns in blocks_of(right, site):
            here = [left[place].modules[site.module] for place in rows]
            there = [right[place].modules[site.module] for place in columns]
            products[np.ix_(rows, columns)] = _block(here, there)
    return products


def squared_norms(adapters: Sequence[Weights], site: Site) -> Float64:
    """(n,) squared Frobenius norms of the updates at one place; 0 where an adapter has none."""
    norms = np.zeros(len(adapters))
    for place, adapter in enumerate(adapters):
        factors = site.factors(adapter)
        if factors is not None:
            B, A = factors.B.astype(np.float64), factors.A.astype(np.float64)
            norms[place] = max(0.0, float(np.sum((B.T @ B) * (A @ A.T))))
    return norms


def _block(left: Sequence[Factors], right: Sequence[Factors]) -> Float64:
    outer = np.concatenate([one.B for one in left], axis=1).T @ np.concatenate(
        [one.B for one in right], axis=1
    )
    outer *= np.concatenate([one.A for one in left]) @ np.concatenate([one.A for one in right]).T
    starts = [np.cumsum([0, *(len(one.A) for one in side[:-1])]) for side in (left, right)]
    sums = np.add.reduceat(np.add.reduceat(outer, starts[0], axis=0), starts[1], axis=1)
    return np.asarray(sums, dtype=np.float64)


def blocks_of(adapters: Sequence[Weights], site: Site) -> list[list[int]]:
    """Indices of the adapters that have an update here, so that no block is too wide."""
    blocks: list[list[int]] = []
    width = _MOST_COLUMNS
    for place, adapter in enumerate(adapters):
        factors = site.factors(adapter)
        if factors is None:
            continue
        if width + len(factors.A) > _MOST_COLUMNS:
            blocks.append([])
            width = 0
        blocks[-1].append(place)
        width += len(factors.A)
    return blocks
