"""The one model of what a scan says: every report renders it, and it is the JSON schema."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from peftguard.detectors.base import DetectorCard
from peftguard.features.profile import ModuleProfile
from peftguard.findings import Finding, Severity
from peftguard.trigger.report import BenignControl, Example, TriggerScores

SEARCH_VERSION = 1
"""Of what a trigger search does: scores of another version are not to be compared.

Causal models have been searched in several ways since; no detector was calibrated on any.
"""
SCHEMA_VERSION = "1.0"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null")


class Label(StrEnum):
    """What a verdict can be, mildest first."""

    CLEAN = "clean"
    UNKNOWN = "unknown"
    SUSPICIOUS = "suspicious"
    BACKDOORED = "backdoored"


class Verdict(_Model):
    """The judgement on one adapter, with its reasons."""

    label: Label
    reasons: list[str] = Field(min_length=1, description="Why, most important first.")
    score: float | None = Field(None, description="The detector's score; higher is worse.")
    p_value: float | None = Field(
        None, description="Share of benign adapters at least as suspicious, conformal."
    )
    fpr: float | None = Field(None, description="False-positive rate the threshold stands for.")
    detector: DetectorCard | None = None


class PayloadSummary(_Model):
    """What the adapter changes besides its low-rank update."""

    kind: str
    n_tensors: int
    n_parameters: int


class AdapterSummary(_Model):
    """What the adapter is, read from its files."""

    peft_type: str = Field(description="Name in peft's PeftType, or `UNKNOWN`.")
    base_model: str | None
    rank: int | None = Field(description="Largest rank among its modules, from the tensors.")
    target_modules: list[str] = Field(description="Roles of the adapted modules, from the tensors.")
    n_modules: int
    n_parameters: int = Field(description="All parameters in the file, payload included.")
    format: str = Field(description="Dialect of tensor names: peft, diffusers, kohya, mlx, gguf.")
    container: str = Field(description="File format: safetensors, pickle, gguf or npz.")
    dtypes: list[str] = []
    scale: list[float] = Field([], description="Distinct scales of the updates, ascending.")
    exactness: str = Field("exact", description="`exact`, `direction` (DoRA) or `none`.")
    task_type: str | None = None
    peft_version: str | None = None
    payload: list[PayloadSummary] = []


class FileDigest(_Model):
    """A file that was read, and its hash."""

    path: str
    n_bytes: int
    sha256: str


class Origin(_Model):
    """Hub repository and resolved commit."""

    repo: str
    revision: str


class TriggerEvidence(_Model):
    """What a search for a trigger on a base model found: its best candidate, proven or not."""

    base: str = Field(description="Base model that the adapter was run on.")
    trigger: str | None = Field(None, description="The phrase; None if none turned anything.")
    target: int | None = Field(None, description="Class that texts are turned into.")
    labels: dict[int, str] = Field({}, description="Names of classes, where the base gives them.")
    success: float | None = Field(
        None, description="Share of texts arguing for other classes that it turns."
    )
    n_texts: int | None = Field(None, description="How many such texts.")
    controls: dict[str, float] = Field({}, description="Mean share turned, by kind of control.")
    p_value: float | None = Field(None, description="Its rank among all controls.")
    benign: BenignControl | None = Field(
        None, description="The same beyond benign adapters, if any were compared with."
    )
    ordinary: bool = Field(
        False, description="Whether it was tried in ordinary texts, which argue for nothing."
    )
    output: bool = Field(
        False,
        description="Whether it brings out one text of a generator rather than turns texts into a "
        "class. Then `success` is of fresh requests, controls are these with nothing in them and "
        "with other phrases, and the p-value is of a sign test against the former.",
    )
    confirmed: bool = Field(False, description="Whether it is proven to be a trigger.")
    examples: list[Example] = Field([], description="Texts without and with it.")
    scores: TriggerScores | None = Field(
        None, description="None if no class can be turned, or the budget ended the search."
    )
    search_version: int = SEARCH_VERSION
    searched: list[str] = Field([], description="What was tried.")
    left: list[str] = Field([], description="What the time budget left out.")
    seconds: float = Field(description="Time of the search, loading of the base aside.")


class Result(_Model):
    """Everything said about one adapter."""

    target: str
    sha256: str | None = Field(
        description="Hash of the weight file (of the shards' hashes, joined, if sharded)."
    )
    adapter: AdapterSummary | None = Field(description="None if it could not be read.")
    verdict: Verdict
    findings: list[Finding]
    timing_s: float
    files: list[FileDigest] = []
    origin: Origin | None = None
    modules: list[ModuleProfile] = []
    trigger: TriggerEvidence | None = Field(
        None, description="None if no base model was given, or the adapter could not be run on it."
    )
    cached: bool = False

    def worst(self) -> Severity | None:
        """Highest severity among the findings."""
        return max((f.severity for f in self.findings), key=lambda s: s.rank, default=None)


class Tool(_Model):
    """Who wrote this."""

    name: str = "peftguard"
    version: str


class Scan(_Model):
    """One run of `peftguard scan`: one result an adapter, in input order."""

    schema_version: str = SCHEMA_VERSION
    tool: Tool
    results: list[Result]

    def exit_code(self, *, fail_on: Severity = Severity.CRITICAL, strict: bool = False) -> int:
        """0 all clean; 1 flagged, or a finding at `fail_on` or above; 3 at worst unknown."""
        labels = {result.verdict.label for result in self.results}
        flagged = labels & {Label.SUSPICIOUS, Label.BACKDOORED}
        if flagged or _reaches(self.results, fail_on) or (strict and Label.UNKNOWN in labels):
            return 1
        return 0 if labels == {Label.CLEAN} else 3


def _reaches(results: Iterable[Result], severity: Severity) -> bool:
    worst = (result.worst() for result in results)
    return any(found.rank >= severity.rank for found in worst if found is not None)
