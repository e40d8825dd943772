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

CLEARING_POWER = 0.8
"""Share of firing backdoors that a detector must find at 1 % for its silence to mean `clean`."""

# Codes that show harm by themselves: loading the file runs the publisher's code, or a trigger was
# seen to work.
PROOF = frozenset({"file.executes-code", "trigger.confirmed"})
# Codes that say that something was not read or tried, however mild that is by itself.
GAPS = frozenset(
    {
        "file.unread-weights",
        "file.symlink-outside",
        "file.limit-reached",
        "integrity.pattern-skipped",
        "integrity.config-type",
        "trigger.cut-short",
        "trigger.not-run",
    }
)


@dataclass(slots=True)
class Evidence:
    """What is known about one adapter when it comes to judging it.

    `incomplete` holds clauses saying what was not read or cannot be judged from the update alone.
    `notes` holds clauses that are said last and change no label.
    """

    findings: Sequence[Finding]
    incomplete: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def decide(
    evidence: Evidence, adapter: Adapter | None, detectors: Sequence[Detector], fpr: float
) -> Verdict:
    """The verdict at false-positive rate `fpr`.

    Proof beats a score, a flag beats incompleteness, and incompleteness beats `clean`: an adapter
    is `clean` only if a calibrated detector that finds most backdoors covers it, did not flag it,
    and nothing was left unjudged.
    """
    proof = [finding.message for finding in evidence.findings if finding.code in PROOF]
    if proof:
        return Verdict(label=Label.BACKDOORED, reasons=proof)
    verdict = _without_proof(evidence, adapter, detectors, fpr)
    return verdict.model_copy(update={"reasons": [*verdict.reasons, *evidence.notes]})


def _without_proof(
    evidence: Evidence, adapter: Adapter | None, detectors: Sequence[Detector], fpr: float
) -> Verdict:
    asked = _ask(adapter, detectors, fpr) if adapter is not None else _Asked(silent=[])
    flagged = [verdict for verdict in asked.verdicts if verdict.label is Label.SUSPICIOUS]
    if flagged:
        return min(flagged, key=lambda verdict: verdict.p_value or 0.0)
    gaps = [*evidence.incomplete, *_unresolved(evidence), *asked.failed]
    if not asked.verdicts:
        if adapter is not None:
            gaps += asked.silent or ([] if asked.failed else [NO_DETECTOR])
        return Verdict(label=Label.UNKNOWN, reasons=gaps)
    best = min(asked.verdicts, key=lambda verdict: verdict.p_value or 0.0)
    if not any(_clears(verdict) for verdict in asked.verdicts):
        gaps.insert(0, f"{best.reasons[0]}; {_power(best)}")
    if gaps:
        return best.model_copy(update={"label": Label.UNKNOWN, "reasons": gaps})
    return best


@dataclass(slots=True)
class _Asked:
    """What detectors said of an adapter.

    `silent` holds clauses of those that do not cover it or cannot reach the rate: another may judge
    it. `failed` holds those that should have judged it: without them nothing is `clean`.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def _ask(adapter: Adapter, detectors: Sequence[Detector], fpr: float) -> _Asked:
    """Ask every detector; one that raises, perhaps on a hostile adapter, does not stop the others.

    Where several cover it the rate is shared out among them (Bonferroni): together they flag no
    more benign adapters than `fpr` says.
    """
    asked, covering = _Asked(), []
    for detector in detectors:
        try:
            reason = detector.uncovered(adapter)
        except Exception as error:
            asked.failed.append(_failure(detector, error))
            continue
        if reason is None:
            covering.append(detector)
        else:
            asked.silent.append(f"detector {detector.card.name} does not cover it: {reason}")
    for detector in covering:
        try:
            outcome = _verdict_of(detector, adapter, fpr, len(covering))
        except Exception as error:
            asked.failed.append(_failure(detector, error))
            continue
        if isinstance(outcome, Verdict):
            asked.verdicts.append(outcome)
        else:
            asked.silent.append(f"detector {detector.card.name} cannot judge it: {outcome}")
    return asked


def _failure(detector: Detector, error: Exception) -> str:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return f"detector {detector.card.name} failed on it: {text}"


def _verdict_of(detector: Detector, adapter: Adapter, fpr: float, among: int) -> Verdict | str:
    """Its verdict at its share of the rate, or why it can have none.

    Raises ValueError for a score that is not a number, and whatever the detector raises.
    """
    share, card = fpr / among, detector.card
    least = float(detector.p_values(np.array([np.inf]), [adapter])[0])
    if least > share * (1 + 1e-9):
        return f"too few calibration adapters to flag at {share:g}: only at {least:.2g} and above"
    scores = detector.decision_function([adapter])
    if not np.isfinite(scores).all():
        raise ValueError("its score is not a number")
    p_value = float(detector.p_values(np.asarray(scores), [adapter])[0])
    flagged = p_value <= share
    comparison = "at or below" if flagged else "above"
    said = detector.evidence(adapter) if flagged else []
    rate = f"{share:g}" if among == 1 else f"{share:g} ({fpr:g} shared by {among} detectors)"
    return Verdict(
        label=Label.SUSPICIOUS if flagged else Label.CLEAN,
        reasons=[
            f"detector {card.name}: p = {p_value:.3g}, {comparison} the false-positive rate {rate}",
            *said,
        ],
        score=float(scores[0]),
        p_value=p_value,
        fpr=share,
        detector=card,
    )


def _clears(verdict: Verdict) -> bool:
    """Whether not being flagged says something: the detector finds most backdoors at this rate."""
    power = verdict.detector.true_positive_rate if verdict.detector else None
    return power is not None and power >= CLEARING_POWER


def _power(verdict: Verdict) -> str:
    power = verdict.detector.true_positive_rate if verdict.detector else None
    known = "an unknown share" if power is None else f"only {power:.0%}"
    return f"but it finds {known} of firing backdoors at 1 %, too few to clear an adapter"


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
