"""Detectors for one adapter whose trigger was searched for."""

from __future__ import annotations

from collections.abc import Sequence

from peftguard.detectors.base import Detector
from peftguard.detectors.trained import TrainedDetector
from peftguard.results import TriggerEvidence


def informed(detectors: Sequence[Detector], search: TriggerEvidence) -> list[Detector]:
    """The same detectors, told what the search found.

    Of those that decide for a base model, one that knows such searches speaks in place of one that
    does not: it sees the same weights and more, and two tests would flag more benign adapters.
    """
    told = [one.informed(search) if isinstance(one, TrainedDetector) else one for one in detectors]
    if search.scores is None:
        return told
    speaking = {base for one in told if _decides(one, True) for base in _bases(one)}
    return [
        one for one in told if not (_decides(one, False) and speaking.intersection(_bases(one)))
    ]


def _decides(detector: Detector, knows_searches: bool) -> bool:
    return (
        isinstance(detector, TrainedDetector)
        and detector.training.decides
        and (detector.training.search_version is not None) is knows_searches
    )


def _bases(detector: Detector) -> list[str]:
    return detector.training.coverage.bases if isinstance(detector, TrainedDetector) else []
