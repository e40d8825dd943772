"""The detector that is to be deceived, as an attacker who has it sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peftguard.adapters.adapter import open_adapter
from peftguard.adapters.update import Update
from peftguard.adversary.writing import Original
from peftguard.detectors.base import Estimator
from peftguard.detectors.calibration import Stratum
from peftguard.detectors.declared import base_among
from peftguard.detectors.trained import TrainedDetector
from peftguard.errors import SettingsError, UnsupportedAdapter
from peftguard.features.weights import Weights, weights_from
from peftguard.mitigation.factored import Factored


@dataclass(frozen=True, slots=True)
class Judged:
    """What a detector says of an adapter on disk.

    Args:
        score: higher is more suspicious.
        p_value: its rank among benign adapters.
        uncovered: why it is not judged at all in a scan, None if it is.
    """

    score: float
    p_value: float
    uncovered: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A trained detector, and the adapter that is to be hidden from it.

    Args:
        detector: with all that it learnt.
        original: the adapter.
    """

    detector: TrainedDetector
    original: Original

    @property
    def estimator(self) -> Estimator:
        """What gives the score."""
        return self.detector.learnt.estimator

    def weights(self, adapter: Factored) -> Weights:
        """What the detector sees of the adapter once it is changed."""
        updates = (
            Update(layer.module, layer.A, layer.B, layer.scale) for layer in adapter.layers.values()
        )
        return weights_from(
            updates,
            name=adapter.name,
            base_model=self.original.base_model,
            peft_type=self.original.peft_type,
            rank=max((layer.rank for layer in adapter.layers.values()), default=None),
        )

    def score(self, adapter: Factored) -> float:
        """Its score, as a scan gives it. Raises InputError as `weights_from`."""
        return float(self.estimator.decision_function([self.weights(adapter)])[0])

    @property
    def benign(self) -> tuple[float, float]:
        """Median and interquartile range of the scores of benign adapters of its kind.

        Raises:
            KeyError: the detector knows no adapter of its base model.
        """
        known = self.detector.training.coverage.bases
        base = base_among(self.original.base_model or "", known) or ""
        scores = self.detector.learnt.calibration.scores[Stratum(base, None)]
        low, middle, high = np.percentile(scores, (25, 50, 75))
        return float(middle), max(float(high - low), 1e-9)


def check_target(detector: object) -> TrainedDetector:
    """A detector that can be attacked.

    Raises:
        SettingsError: it was not made by `peftguard train`, or looks at more than weights.
    """
    if not isinstance(detector, TrainedDetector):
        raise SettingsError("only detectors made by `peftguard train` can be attacked")
    if detector.training.search_version is not None:
        raise SettingsError(f"{detector.training.name}: its score takes a trigger search as well")
    return detector


def judged(detector: TrainedDetector, folder: Path) -> Judged:
    """What a scan would get from the detector.

    Raises:
        UnsupportedAdapter: it is of a base model that the detector does not know.
        InputError: as of `open_adapter`.
    """
    known = detector.training.coverage.bases
    with open_adapter(folder) as adapter:
        if base_among(adapter.base_model or "", known) is None:
            raise UnsupportedAdapter(
                "not of the detector's base model",
                file=adapter.source.target,
                expected=" or ".join(known),
                found=adapter.base_model,
            )
        scores = detector.decision_function([adapter])
        p_value = float(detector.p_values(scores, [adapter])[0])
        return Judged(float(scores[0]), p_value, detector.uncovered(adapter))
