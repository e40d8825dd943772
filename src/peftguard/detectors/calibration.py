"""From a score to a p-value: how many benign adapters of the same kind look at least as bad.

p = (1 + number of calibration scores >= score) / (n + 1), within one stratum (Mondrian conformal
prediction). What that guarantees depends on where the calibration scores come from:

- `split`: from benign adapters that the detector never saw. If a fresh benign adapter is
  exchangeable with those of its stratum, P(p <= a) <= a holds exactly, for any detector and any
  number of adapters.
- `cross`: from benign adapters that were held out in turn, each scored by a detector trained on the
  rest, while the scan uses one trained on all. No adapter is spent on calibration alone, but the
  guarantee is approximate: it is as good as the two detectors' scores are alike.

A method with too few benign adapters of its own is compared with all those of its base model. Then
the level holds for adapters drawn from that mixture of methods, not for each method by itself.
Nothing is promised for adapters unlike the calibration's: see `peftguard.detectors.coverage`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from peftguard.detectors.base import Scores

LEAST_OF_ITS_OWN = 199
"""Benign adapters from which a method is compared with its own kind only: p can then reach .005."""


class Stratum(NamedTuple):
    """Adapters that are compared with one another: of one base, of one method or (None) of any."""

    base: str
    method: str | None


class Calibration:
    """Scores of benign adapters by stratum.

    Args:
        scores: (n,) finite, n > 0, for every stratum; each base has a stratum for any method.

    Raises:
        ValueError: a stratum is empty, of another shape or not finite, or a base's is missing.
    """

    def __init__(self, scores: Mapping[Stratum, Scores]) -> None:
        for stratum, own in scores.items():
            if own.ndim != 1 or not len(own) or not np.isfinite(own).all():
                raise ValueError(f"{stratum}: expected finite scores, found {own.shape}")
            if Stratum(stratum.base, None) not in scores:
                raise ValueError(f"{stratum.base}: no stratum for any method")
        self.scores = {stratum: np.sort(own).astype(np.float64) for stratum, own in scores.items()}

    @classmethod
    def fit(
        cls,
        scores: ArrayLike,
        bases: Sequence[str],
        methods: Sequence[str],
        *,
        least: int = LEAST_OF_ITS_OWN,
    ) -> Self:
        """Sort (n,) scores of benign adapters into strata by the bases and methods of each.

        Raises:
            ValueError: there is no score, or one is not finite.
        """
        values = np.asarray(scores, dtype=np.float64)
        if not len(values):
            raise ValueError("no calibration scores")
        of_base, of_method = np.array(bases), np.array(methods)
        strata: dict[Stratum, Scores] = {}
        for base in sorted(set(bases)):
            here = of_base == base
            strata[Stratum(base, None)] = values[here]
            for method in sorted(set(of_method[here].tolist())):
                own = here & (of_method == method)
                if own.sum() >= least:
                    strata[Stratum(base, method)] = values[own]
        return cls(strata)

    def p_values(self, scores: ArrayLike, bases: Iterable[str], methods: Iterable[str]) -> Scores:
        """(n,) p-values in (0, 1] of (n,) scores.

        Raises:
            KeyError: no benign adapter of that base was scored.
        """
        values = np.asarray(scores, dtype=np.float64)
        own = [self._own(base, method) for base, method in zip(bases, methods, strict=True)]
        pairs = zip(values, own, strict=True)
        return np.array([float(conformal(score, benign)) for score, benign in pairs])

    @property
    def n_smallest(self) -> int:
        """Benign adapters in the smallest stratum: no p-value below 1 / (n + 1) comes of it."""
        return min(len(own) for own in self.scores.values())

    def _own(self, base: str, method: str) -> Scores:
        own = self.scores.get(Stratum(base, method))
        return self.scores[Stratum(base, None)] if own is None else own


def conformal(scores: ArrayLike, benign: Scores) -> Scores:
    """(n,) p-values in (0, 1] of (n,) scores among ascending scores of benign adapters.

    The share of benign ones at or above a score, the tested adapter counted among them.
    """
    above = len(benign) - np.searchsorted(benign, scores, side="left")
    return np.asarray((1.0 + above) / (1.0 + len(benign)), dtype=np.float64)
