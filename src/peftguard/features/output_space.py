"""Where updates write, whatever they read: products of their output covariances.

S = dW dW^T / |dW dW^T| says how much an update changes each output direction. In low-rank training
A hardly leaves its random start, so what dW reads is mostly chance, while B collects gradients: the
outputs of two adapters can be compared where their inputs cannot. With A A^T = L L^T and P = B L,
dW dW^T = P P^T, and <S_x, S_z> is the sum of the squares of P_x^T P_z: no dense matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from peftguard.features.inner_product import Site, blocks_of
from peftguard.features.singular import decomposed
from peftguard.features.weights import Factors, Weights

Float64 = NDArray[np.float64]


def outputs_of(factors: Factors) -> NDArray[np.float32]:
    """P, (out, k): its columns are the left singular vectors of the update times their values."""
    left, values, _ = decomposed(factors.B, factors.A)
    outputs: NDArray[np.float32] = (left * values).astype(np.float32)
    return outputs


def output_products(left: Sequence[Weights], right: Sequence[Weights], site: Site) -> Float64:
    """(n, m) <dW_x dW_x^T, dW_z dW_z^T> at one place; 0 where either adapter has no update."""
    products = np.zeros((len(left), len(right)))
    stacks = [_stacked(side, site) for side in (left, right)]
    for rows, first, row_starts in stacks[0]:
        for columns, second, column_starts in stacks[1]:
            squares = np.square(first.T @ second)
            sums = np.add.reduceat(np.add.reduceat(squares, row_starts), column_starts, axis=1)
            products[np.ix_(rows, columns)] = sums
    return products


def _stacked(
    adapters: Sequence[Weights], site: Site
) -> list[tuple[list[int], NDArray[np.float32], NDArray[np.int64]]]:
    """By block: places of the adapters, their outputs side by side, and where each begins."""
    stacks = []
    for places in blocks_of(adapters, site):
        own = [outputs_of(adapters[place].modules[site.module]) for place in places]
        starts = np.cumsum([0, *(one.shape[1] for one in own[:-1])])
        stacks.append((places, np.concatenate(own, axis=1), starts))
    return stacks
