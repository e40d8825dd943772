"""A trained detector: what it learnt, how it was calibrated, where it holds, how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from peftguard.detectors.base import DetectorCard, Estimator, Scores
from peftguard.detectors.declared import CoverageCard, base_among, method_of
from peftguard.errors import InputError
from peftguard.features.weights import Weights, weights_of

if TYPE_CHECKING:
    from peftguard.adapters.adapter import Adapter
    from peftguard.detectors.calibration import Calibration
    from peftguard.detectors.coverage import Coverage
    from peftguard.results import TriggerEvidence

PREPROCESSING = (
    "per module, B @ A as float32 factors: scale (alpha / r or its variant) and ranks' importance "
    "folded in, Kronecker factors multiplied out, magnitudes and everything beside updates ignored"
)


class _Card(BaseModel):
    # Built when a card is first read, whole: on import every model in it would be built by itself.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class Rate(_Card):
    """A measured figure with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int = Field(ge=0, description="Adapters that it was measured on.")


class AtRate(_Card):
    """What a scan at one false-positive rate flags: adapters that are covered and have p <= fpr."""

    fpr: float = Field(gt=0, lt=1)
    true_positive_rate: Rate | None = None
    false_positive_rate: Rate | None = None


class Metrics(_Card):
    """Measured on adapters held out of the fit that scores them, in domain.

    Rates have Clopper-Pearson intervals, the AUROC a bootstrap interval over adapters.
    """

    auroc: Rate | None = None
    at: list[AtRate] = []
    covered_benign: Rate | None = None
    covered_backdoored: Rate | None = None


class Protocol(_Card):
    """How it was calibrated and measured."""

    calibration: Literal["cross", "split"]
    folds: int = Field(ge=1)
    groups: str = Field(description="What was never parted between training and held out.")


class ZooCard(_Card):
    """The benchmark it was trained on: adapters that it learnt from, and those left out."""

    name: str
    manifest_sha256: str
    n_benign: int = Field(ge=0)
    n_backdoored: int = Field(ge=0)
    n_duds: int = Field(ge=0, description="Poisoned, but they do not fire; left out.")
    n_bereft: int = Field(ge=0, description="Benign twins of duds; left out.")


class StratumCard(_Card):
    """Benign adapters that are compared with one another; without a method, all of the base."""

    base: str
    method: str | None
    n: int = Field(gt=0)


class TensorFile(_Card):
    """The file of arrays that belongs to a card."""

    n_bytes: int = Field(gt=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class TrainingCard(_Card):
    """All about a trained detector but its arrays; holds no date, so that it can be made again."""

    format: Literal["peftguard-detector-1"] = "peftguard-detector-1"
    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w.+-]+$")
    decides: bool = Field(
        False, description="Among shipped detectors of one base, this one alone decides."
    )
    search_version: int | None = Field(
        None, description="Of the trigger search whose scores it knows; None if it needs no search."
    )
    estimator: str = Field(description="Kind of detector.")
    params: dict[str, JsonValue]
    seed: int
    zoo: ZooCard
    coverage: CoverageCard
    protocol: Protocol
    metrics: Metrics
    calibration: list[StratumCard] = Field(min_length=1)
    preprocessing: str = PREPROCESSING
    settings: dict[str, JsonValue] = Field(description="What was learnt besides arrays.")
    tensors: TensorFile
    versions: dict[str, str]
    command: str

    def to_bytes(self) -> bytes:
        """The card as its file."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False)
        return f"{text}\n".encode()


class Learnt(NamedTuple):
    """The parts of a detector that have arrays."""

    estimator: Estimator
    calibration: Calibration
    coverage: Coverage


@dataclass(eq=False)
class TrainedDetector:
    """A detector as a scan uses it: see `peftguard.detectors.base.Detector`.

    Args:
        training: its card.
        load: gives the rest; called for the first adapter whose headers lie inside, if there is
            one. Raises InputError.
        search: what a search for the adapter's trigger found, if there was one.
    """

    training: TrainingCard
    load: Callable[[], Learnt]
    search: TriggerEvidence | None = None
    _last: tuple[Adapter, Weights] | None = field(init=False, default=None, repr=False)

    @cached_property
    def learnt(self) -> Learnt:
        """What was learnt, loaded when first needed."""
        return self.load()

    @cached_property
    def card(self) -> DetectorCard:
        """What a verdict says of the detector."""
        training = self.training
        at = next((one for one in training.metrics.at if one.fpr == 0.01), AtRate(fpr=0.01))
        found, wrong = at.true_positive_rate, at.false_positive_rate
        return DetectorCard(
            name=training.name,
            sha256=hashlib.sha256(training.to_bytes()).hexdigest(),
            coverage=training.coverage.line,
            n_calibration=min(stratum.n for stratum in training.calibration),
            true_positive_rate=found.value if found else None,
            false_positive_rate=wrong.value if wrong else None,
        )

    def uncovered(self, adapter: Adapter) -> str | None:
        """Why this adapter lies outside, as a clause; weights are read only if its headers fit.

        Raises:
            InputError: the detector's own files are broken.
        """
        reason = self.training.coverage.outside(adapter) or self._unsearched()
        if reason is not None:
            return reason
        coverage = self.learnt.coverage
        try:
            return coverage.uncovered(self._weights(adapter))
        except InputError as error:
            return f"its updates could not be read: {error}"

    def informed(self, search: TriggerEvidence | None) -> TrainedDetector:
        """The same detector, for an adapter whose trigger was searched for."""
        return replace(self, load=lambda: self.learnt, search=search)

    def _unsearched(self) -> str | None:
        """Why the search that there was does not do, as a clause; None if it does."""
        if self.training.search_version is None:
            return None
        if self.search is None or self.search.scores is None:
            return "it takes a search for the trigger that comes to a score (--base)"
        if base_among(self.search.base, self.training.coverage.bases) is None:
            return f"its trigger was searched for on another base model, {self.search.base}"
        if self.search.search_version != self.training.search_version:
            return "it was calibrated on another version of the trigger search"
        return None

    def decision_function(self, adapters: Sequence[Adapter]) -> Scores:
        """(n,) scores, higher is more suspicious. Raises InputError as `weights_of`."""
        return self.learnt.estimator.decision_function([self._weights(one) for one in adapters])

    def p_values(self, scores: Scores, adapters: Sequence[Adapter]) -> Scores:
        """(n,) conformal p-values of the scores of covered adapters, each within its stratum."""
        known = self.training.coverage.bases
        bases = [base_among(one.base_model or "", known) or "" for one in adapters]
        methods = [method_of(one) for one in adapters]
        return self.learnt.calibration.p_values(scores, bases, methods)

    def evidence(self, adapter: Adapter) -> list[str]:
        """What in a covered adapter its score comes from, as clauses."""
        return self.learnt.estimator.evidence(self._weights(adapter))

    def _weights(self, adapter: Adapter) -> Weights:
        """Read once for the distance and the score; one adapter is kept."""
        if self._last is None or self._last[0] is not adapter:
            scores = self.search.scores if self.search else None
            self._last = adapter, replace(weights_of(adapter), searched=scores)
        return self._last[1]
