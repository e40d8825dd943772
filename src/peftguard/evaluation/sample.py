"""Test adapters as one detector scored them, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_POOLS = 20
"""Split groups from which whole ones are drawn for intervals: fewer cannot tell how they differ."""


@dataclass(frozen=True, eq=False)
class Sample:
    """n test adapters, S seeds.

    Args:
        adapters: (n,) place in the benchmark; one may be tested by several trainings.
        y: (n,) 1 for a backdoor that fires, 0 for benign, -1 for a dud.
        scores: (S, n) calibrated ranks.
        probability: (S, n) Platt-scaled.
        flagged: (S, n) over the calibrated threshold.
        uncovered: (n,) the detector would abstain; None if nobody knows.
        pairs: (n,) numbers that agree for twins; None: every adapter stands alone.
        pools: (n,) numbers that agree where adapters are of one split group; None likewise.
    """

    adapters: NDArray[np.int64]
    y: NDArray[np.int64]
    scores: NDArray[np.float64]
    probability: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    uncovered: NDArray[np.bool_] | None = None
    pairs: NDArray[np.int64] | None = None
    pools: NDArray[np.int64] | None = None

    @property
    def clusters(self) -> NDArray[np.int64]:
        """(n,) numbers that agree where adapters are drawn together: never an adapter apart.

        Pools of data where there are enough of them, else twins.
        """
        if self.pools is not None and len(np.unique(self.pools)) >= LEAST_POOLS:
            return self.pools
        return self.adapters if self.pairs is None else self.pairs

    def where(self, mask: NDArray[np.bool_] | NDArray[np.int64]) -> Sample:
        """Those where `mask` (n,) is true, or those at the given places."""
        return Sample(
            self.adapters[mask],
            self.y[mask],
            self.scores[:, mask],
            self.probability[:, mask],
            self.flagged[:, mask],
            None if self.uncovered is None else self.uncovered[mask],
            None if self.pairs is None else self.pairs[mask],
            None if self.pools is None else self.pools[mask],
        )

    @classmethod
    def unscored(cls, adapters: Sequence[int], seeds: int) -> Sample:
        """Benign adapters that nothing was asked about, so that nothing flagged them."""
        n = len(adapters)
        zeros = np.zeros((seeds, n))
        places = np.array(adapters, dtype=np.int64)
        return cls(places, np.zeros(n, dtype=np.int64), zeros, zeros, zeros > 0)

    @property
    def judged(self) -> Sample:
        """Without duds."""
        return self.where(self.y >= 0)


def joined(samples: Sequence[Sample]) -> Sample:
    """Several samples of the same number of seeds as one."""
    return Sample(
        np.concatenate([sample.adapters for sample in samples]),
        np.concatenate([sample.y for sample in samples]),
        np.concatenate([sample.scores for sample in samples], axis=1),
        np.concatenate([sample.probability for sample in samples], axis=1),
        np.concatenate([sample.flagged for sample in samples], axis=1),
        _all_of([sample.uncovered for sample in samples]),
        _all_of([sample.pairs for sample in samples]),
        _all_of([sample.pools for sample in samples]),
    )


def merged(samples: Sequence[Sample]) -> Sample:
    """Samples of the same adapters as one: flagged by any, uncovered where all abstain.

    An adapter that one of them does not cover must not be flagged there.
    """
    ordered = [sample.where(np.argsort(sample.adapters)) for sample in samples]
    uncovered = [sample.uncovered for sample in ordered if sample.uncovered is not None]
    return replace(
        ordered[0],
        scores=np.max([sample.scores for sample in ordered], axis=0),
        probability=np.max([sample.probability for sample in ordered], axis=0),
        flagged=np.any([sample.flagged for sample in ordered], axis=0),
        uncovered=np.all(uncovered, axis=0) if len(uncovered) == len(ordered) else None,
    )


def _all_of(arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Arrays end to end; None if one is missing."""
    found = [array for array in arrays if array is not None]
    return np.concatenate(found) if len(found) == len(arrays) else None
