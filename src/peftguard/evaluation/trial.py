"""One detector on one training set: fits over seeds, calibrated, and the scores they give."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftguard.evaluation.calibration import Contestant, calibrate, finite, out_of_fold
from peftguard.evaluation.sample import Sample
from peftguard.evaluation.zoo import Zoo

SHARE = 0.9
"""Of the training adapters that a seed draws."""


@dataclass(frozen=True, eq=False)
class Entrant:
    """A detector in the evaluation: its name, and how to make one for a seed."""

    name: str
    make: Callable[[int], Contestant]
    crosses_bases: bool = False


@dataclass(frozen=True, eq=False)
class Trial:
    """Scores of test adapters by their place in the benchmark, or why there are none."""

    sample: Sample | None
    fit_seconds: float = 0.0
    score_seconds: float = 0.0
    failed: str | None = None

    def of(self, places: Sequence[int]) -> Sample:
        """The sample of some of the adapters that were scored."""
        if self.sample is None:
            raise ValueError("a trial that failed has no scores")
        at = {int(place): number for number, place in enumerate(self.sample.adapters)}
        mask = np.zeros(len(at), dtype=bool)
        mask[[at[place] for place in places]] = True
        return self.sample.where(mask)


def run_trial(
    zoo: Zoo,
    entrant: Entrant,
    train: Sequence[int],
    test: Sequence[int],
    *,
    take: int | None,
    seeds: int,
    fpr: float,
) -> Trial:
    """Fit, calibrate and score over seeds.

    A detector that raises has failed here: a trial without scores says why.

    Args:
        zoo: the benchmark.
        entrant: what is measured.
        train: places of training adapters, no duds.
        test: places of test adapters.
        take: training adapters that a seed draws; None: `SHARE` of all.
        seeds: number of repetitions.
        fpr: false-positive rate of the calibrated threshold.
    """
    if not test:
        return Trial(Sample.unscored((), seeds))
    X = [zoo.entries[i].weights for i in test]
    scores, probability, flagged, fitting, scoring = [], [], [], 0.0, 0.0
    groups = zoo.groups(split_groups=False)
    labels = zoo.labels()
    for seed in range(seeds):
        drawn = draw(np.asarray(train), labels[list(train)], take or SHARE * len(train), seed)
        known = [zoo.entries[i].weights for i in drawn]
        try:
            held = out_of_fold(
                lambda: entrant.make(seed),  # noqa: B023 - called at once
                known,
                labels[drawn],
                groups[drawn],
                seed,
            )
            calibration = calibrate(held, labels[drawn])
            start = time.perf_counter()
            model = entrant.make(seed)
            model.fit(known, labels[drawn])
            fitted = time.perf_counter()
            raw = finite(model, X)
            scoring += time.perf_counter() - fitted
            fitting += fitted - start
        except Exception as error:  # whatever goes wrong is this detector's, not the run's
            return Trial(None, failed=_reason(error))
        scores.append(calibration.rank(raw))
        probability.append(calibration.probability(raw))
        flagged.append(calibration.flagged(raw, fpr))
    y = np.array([-1 if zoo.entries[i].dud else labels[i] for i in test], dtype=np.int64)
    sample = Sample(np.asarray(test), y, np.stack(scores), np.stack(probability), np.stack(flagged))
    return Trial(sample, fitting / seeds, scoring / seeds)


def draw(
    places: NDArray[np.int64], y: NDArray[np.int64], count: float, seed: int
) -> NDArray[np.int64]:
    """About `count` of (n,) places, the same share of each class, in their own order."""
    rng = np.random.default_rng(seed)
    share = min(1.0, count / len(places))
    chosen = [
        rng.permutation(places[y == label])[: round(share * int((y == label).sum()))]
        for label in (0, 1)
    ]
    wanted = set(np.concatenate(chosen).tolist())
    return np.array([place for place in places.tolist() if place in wanted], dtype=np.int64)


def _reason(error: Exception) -> str:
    from peftguard.errors import PeftGuardError

    text = " ".join(str(error).split())[:200]
    return text if isinstance(error, PeftGuardError) else f"{type(error).__name__}: {text}"
