"""Test adapters as one detector scored them, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    """

    adapters: NDArray[np.int64]
    y: NDArray[np.int64]
    scores: NDArray[np.float64]
    probability: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    uncovered: NDArray[np.bool_] | None = None

    def where(self, mask: NDArray[np.bool_]) -> Sample:
        """Those where `mask` (n,) is true."""
        return Sample(
            self.adapters[mask],
            self.y[mask],
            self.scores[:, mask],
            self.probability[:, mask],
            self.flagged[:, mask],
            None if self.uncovered is None else self.uncovered[mask],
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
    uncovered = [sample.uncovered for sample in samples if sample.uncovered is not None]
    return Sample(
        np.concatenate([sample.adapters for sample in samples]),
        np.concatenate([sample.y for sample in samples]),
        np.concatenate([sample.scores for sample in samples], axis=1),
        np.concatenate([sample.probability for sample in samples], axis=1),
        np.concatenate([sample.flagged for sample in samples], axis=1),
        np.concatenate(uncovered) if len(uncovered) == len(samples) else None,
    )
