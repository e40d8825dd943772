"""Findings and scores in, one verdict out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from peftguard.adapters.adapter import Adapter
from peftguard.detectors.base import Detector
from peftguard.findings import Finding, Severity
from peftguard.results import Label, Verdict

NO_DETECTOR = "no calibrated detector is installed, so the weights were described but not judged"

# Codes that show harm by themselves: loading the file runs the publisher's code.
PROOF = frozenset({"file.executes-code"})
# Codes that say that something was not read, however mild that is by itself.
GAPS = frozenset(
    {
        "file.unread-weights",
        "file.symlink-outside",
        "file.limit-reached",
        "integrity.pattern-skipped",
        "integrity.config-type",
    }
)


@dataclass(slots=True)
class Evidence:
    """What is known about one adapter when it comes to judging it.

    `incomplete` holds clauses saying what was not read or cannot be judged from the update alone.
    """

    findings: Sequence[Finding]
    incomplete: list[str] = field(default_factory=list)


def decide(
    evidence: Evidence, adapter: Adapter | None, detectors: Sequence[Detector], fpr: float
) -> Verdict:
    """The verdict at false-positive rate `fpr`.

    Proof beats a score, a flag beats incompleteness, and incompleteness beats `clean`: an adapter
    is `clean` only if a calibrated detector covers it, did not flag it, and nothing was left
    unjudged.
    """
    proof = [finding.message for finding in evidence.findings if finding.code in PROOF]
    if proof:
        return Verdict(label=Label.BACKDOORED, reasons=proof)
    scored, uncovered = _score(adapter, detectors, fpr)
    flagged = [verdict for verdict in scored if verdict.label is Label.SUSPICIOUS]
    if flagged:
        return min(flagged, key=lambda verdict: verdict.p_value or 0.0)
    gaps = [*evidence.incomplete, *_unresolved(evidence)]
    if not scored:
        if adapter is not None:
            gaps += uncovered or [NO_DETECTOR]
        return Verdict(label=Label.UNKNOWN, reasons=gaps)
    best = min(scored, key=lambda verdict: verdict.p_value or 0.0)
    if gaps:
        return best.model_copy(update={"label": Label.UNKNOWN, "reasons": gaps})
    return best


def _score(
    adapter: Adapter | None, detectors: Sequence[Detector], fpr: float
) -> tuple[list[Verdict], list[str]]:
    """Verdicts of the detectors that cover this adapter, and why the others do not."""
    scored: list[Verdict] = []
    uncovered: list[str] = []
    if adapter is None:
        return scored, uncovered
    for detector in detectors:
        reason = detector.uncovered(adapter)
        if reason is None:
            scored.append(_verdict_of(detector, adapter, fpr))
        else:
            uncovered.append(f"detector {detector.card.name} does not cover it: {reason}")
    return scored, uncovered


def _verdict_of(detector: Detector, adapter: Adapter, fpr: float) -> Verdict:
    scores = detector.decision_function([adapter])
    p_value = float(detector.p_values(np.asarray(scores))[0])
    flagged = p_value <= fpr
    comparison = "at or below" if flagged else "above"
    return Verdict(
        label=Label.SUSPICIOUS if flagged else Label.CLEAN,
        reasons=[
            f"detector {detector.card.name}: p = {p_value:.3g}, {comparison} "
            f"the false-positive rate {fpr:g}"
        ],
        score=float(scores[0]),
        p_value=p_value,
        fpr=fpr,
        detector=detector.card,
    )


def _unresolved(evidence: Evidence) -> list[str]:
    """What stands in the way of `clean` until somebody has looked at it, not said already."""
    return [
        f"{finding.code}: {finding.message}"
        for finding in dict.fromkeys(evidence.findings)
        if _stands_in_the_way(finding)
        and not any(finding.message in clause for clause in evidence.incomplete)
    ]


def _stands_in_the_way(finding: Finding) -> bool:
    return finding.code in GAPS or finding.severity.rank >= Severity.HIGH.rank
