"""The one model of what an evaluation says: tables, JSON and the HTML page all render it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = "1.0"
LEAK_TEST = "recipe (leak test)"
"""Name of the detector that sees the recipe only."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Figure(_Model):
    """One number with its 95 % interval."""

    value: float | None = Field(None, description="Mean over seeds; None where it is undefined.")
    low: float | None = Field(None, description="Lower end of the 95 % interval.")
    high: float | None = Field(None, description="Upper end of the 95 % interval.")
    n: int = Field(0, ge=0, description="Test adapters behind it.")


class Metrics(_Model):
    """How one detector did on one set of test adapters."""

    auroc: Figure = Figure()
    tpr_at_1: Figure = Field(Figure(), description="Backdoored flagged where 1 % of benign are.")
    tpr_at_5: Figure = Field(Figure(), description="Backdoored flagged where 5 % of benign are.")
    fpr: Figure = Field(Figure(), description="Benign flagged at the calibrated threshold.")
    fpr_covered: Figure = Field(
        Figure(), description="The same, of those that the detector covers; in the wild only."
    )
    tpr: Figure = Field(Figure(), description="Backdoored flagged at the calibrated threshold.")
    accuracy: Figure = Field(Figure(), description="At the calibrated threshold.")
    brier: Figure = Field(Figure(), description="Of the Platt-scaled probability; lower is better.")
    cross_entropy: Figure = Field(Figure(), description="Of the same, in nats; lower is better.")
    abstention: Figure = Field(Figure(), description="Share that the detector does not cover.")


class Scored(_Model):
    """One detector on one fold, or pooled over a protocol's folds."""

    detector: str
    metrics: Metrics = Metrics()
    groups: dict[str, dict[str, Metrics]] = Field(
        {},
        description="Factor (attack, method, rank, ...), then its value, then the metrics; "
        "of pooled results only.",
    )
    roc: list[tuple[float, float]] = Field(
        [], description="(false, true) positive rates of the scores averaged over seeds."
    )
    fit_seconds: float = Field(0.0, description="Mean over seeds of one fit on all training rows.")
    score_seconds: float = Field(0.0, description="Mean over seeds of scoring all test rows.")
    failed: str | None = Field(None, description="Why there are no figures.")


class Fold(_Model):
    """One training set and one test set."""

    name: str
    trained_on: str | None = Field(
        None,
        description="The only value of the factor in training (of few_labels: how many adapters); "
        "None: everything but `tested_on`. A transfer matrix is the folds that have both.",
    )
    tested_on: str | None = Field(None, description="Value of the protocol's factor.")
    n_train: int = Field(
        0, description="Training adapters, of which every seed takes 90 %; mean over parts."
    )
    n_train_backdoored: int = 0
    n_test: int = 0
    n_test_backdoored: int = 0
    n_duds: int = Field(0, description="Poisoned test adapters that do not fire, scored apart.")
    n_bereft: int = Field(
        0, description="Benign test adapters left out, for their poisoned twins are duds."
    )
    duds_flagged: dict[str, Figure] = Field(
        {}, description="Share of the duds over the calibrated threshold, by detector."
    )
    detectors: list[Scored] = []


class ProtocolResult(_Model):
    """One question and its answer."""

    name: str
    title: str
    question: str = Field(description="What the protocol asks, in one sentence.")
    folds: list[Fold] = []
    pooled: list[Scored] = Field(
        [],
        description="All folds together, on conformal p-values calibrated fold by fold; in the "
        "wild every adapter once, flagged where the detector of any base that covers it flags it.",
    )
    skipped: str | None = Field(None, description="Why this benchmark cannot answer it.")
    curve: dict[str, list[tuple[int, Figure]]] = Field(
        {}, description="few_labels: AUROC over the number of training adapters, by detector."
    )


class Counts(_Model):
    """What the benchmark holds."""

    adapters: int = 0
    benign: int = 0
    backdoored: int = Field(0, description="Only those that fire count as positive.")
    duds: int = 0
    bereft: int = Field(0, description="Benign, but left out: their poisoned twins are duds.")
    train: int = 0
    test: int = 0


class Evaluation(_Model):
    """One run of `peftguard evaluate`."""

    schema_version: str = SCHEMA_VERSION
    peftguard: str = Field(description="Version.")
    versions: dict[str, str] = Field({}, description="Python and the libraries that matter.")
    zoo: str = Field(description="Name of the benchmark's folder.")
    manifest_sha256: str
    seeds: int
    fpr: float = Field(description="False-positive rate the calibrated threshold stands for.")
    counts: Counts = Counts()
    notes: list[str] = Field([], description="How the figures are to be read.")
    command: str = Field("", description="What gives these figures again.")
    protocols: list[ProtocolResult] = []
