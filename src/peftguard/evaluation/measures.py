"""The figures of an evaluation by name, in the order in which tables and the page show them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from peftguard.evaluation.results import Figure, Metrics


@dataclass(frozen=True, slots=True)
class Measure:
    """One field of `Metrics`, and what readers know it by."""

    key: str
    name: str
    percent: bool = False
    ranked: bool = False
    """True where the highest is the best; a detector that flags nobody has no false positives."""

    def of(self, metrics: Metrics) -> Figure:
        """This measure's figure."""
        figure: Figure = getattr(metrics, self.key)
        return figure


AUROC = Measure("auroc", "AUROC", ranked=True)
TPR_AT_1 = Measure("tpr_at_1", "TPR at 1 % FPR", percent=True, ranked=True)
FPR = Measure("fpr", "Benign flagged", percent=True)
FPR_COVERED = Measure("fpr_covered", "Covered benign flagged", percent=True)
ABSTENTION = Measure("abstention", "Abstains", percent=True)
MEASURES = (
    AUROC,
    TPR_AT_1,
    Measure("tpr_at_5", "TPR at 5 % FPR", percent=True, ranked=True),
    Measure("tpr", "Backdoored flagged", percent=True),
    FPR,
    FPR_COVERED,
    Measure("accuracy", "Accuracy", percent=True),
    Measure("brier", "Brier"),
    Measure("cross_entropy", "Cross-entropy"),
    ABSTENTION,
)


def known(value: float | None) -> TypeGuard[float]:
    """True of a number that can be shown."""
    return value is not None and math.isfinite(value)


def main_measure(metrics: Sequence[Metrics]) -> Measure:
    """AUROC, or the false-positive rate where there is nothing backdoored to tell apart."""
    if any(known(each.auroc.value) for each in metrics):
        return AUROC
    return FPR if any(known(each.fpr.value) for each in metrics) else AUROC


def shown(metrics: Iterable[Metrics]) -> list[Measure]:
    """Those that someone has, the main one first.

    Among strangers' adapters the share of covered ones is shown even if there is none: that nobody
    was judged must not look like nobody flagged.
    """
    every = list(metrics)
    main = main_measure(every)
    found = {each for each in MEASURES if any(known(each.of(one).value) for one in every)}
    if main is FPR and ABSTENTION in found:
        found.add(FPR_COVERED)
    return [main, *(each for each in MEASURES if each in found and each is not main)]
