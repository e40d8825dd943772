"""What a trained detector offers to a scan: a score, its calibration, and where it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from peftguard.adapters.adapter import Adapter

Scores = NDArray[np.float64]


class DetectorCard(BaseModel):
    """Which detector spoke, and how far it can be trusted."""

    model_config = ConfigDict(extra="forbid")

    name: str
    sha256: str = Field(description="Hash of the detector's weights and card.")
    coverage: str = Field(description="What it was calibrated on, in one line.")
    n_calibration: int = Field(description="Benign adapters behind its p-values.")
    true_positive_rate: float | None = Field(
        None, description="Share of firing backdoors flagged at 1 % FPR, if it was measured."
    )


class Detector(Protocol):
    """A scikit-learn style estimator over adapters, fitted and calibrated.

    Third parties publish one through the entry point group `peftguard.detectors`: a callable
    without arguments that returns a fitted detector.
    """

    card: DetectorCard

    def uncovered(self, adapter: Adapter) -> str | None:
        """Why this adapter lies outside the calibration, as a clause; None if it lies inside."""
        ...

    def decision_function(self, adapters: Sequence[Adapter]) -> Scores:
        """(n,) scores, higher is more suspicious."""
        ...

    def p_values(self, scores: Scores) -> Scores:
        """(n,) conformal p-values of `scores` among benign calibration adapters, in (0, 1]."""
        ...
