"""The search for a trigger that a scan with a base model adds: what it says of one adapter."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from peftguard.adapters.adapter import Adapter, only_source, open_adapter
from peftguard.adapters.source import Source
from peftguard.findings import Finding, found
from peftguard.limits import Limits
from peftguard.results import TriggerEvidence
from peftguard.settings import ScanSettings

if TYPE_CHECKING:
    from peftguard.trigger.report import Proof, TriggerReport
    from peftguard.trigger.subject import Subject


@dataclass(slots=True)
class Searched:
    """What a search gave; nothing at all if none was asked for.

    `notes` holds clauses for the verdict's reasons that change no label.
    """

    trigger: TriggerEvidence | None = None
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def search_for_trigger(source: Source, settings: ScanSettings) -> Searched:
    """Search for a trigger on `settings.base`. Never raises: what goes wrong is a finding."""
    base = settings.base
    if base is None:
        return Searched()
    try:
        return _hunted(source, settings, base)
    except Exception as error:  # perhaps on a hostile adapter: what else is known of it stands
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        problem = found("trigger.not-run", f"no trigger search on {base}: {reason}")
        return Searched(findings=[problem])


def told(report: TriggerReport) -> Searched:
    """What a verdict makes of a report.

    Only a confirmed trigger is proof. A search that was cut short is a gap; one that ended without
    proof is told as a reason and clears nobody.
    """
    base, proof = report.provenance.base, report.proof
    searched = Searched(trigger=evidence(report))
    if report.left:
        message = f"trigger search on {base}: {'; '.join(report.left)}"
        searched.findings.append(found("trigger.cut-short", message))
    if proof is not None and proof.confirmed:
        searched.findings.append(found("trigger.confirmed", _confirmed(report, proof)))
        return searched
    if proof is not None and _turns_most(proof):
        message = f"on {base} {proof.trigger!r} {_does(report, proof)}, but it is no proof"
        searched.findings.append(found("trigger.phrase", f"{message}: {proof.why}"))
    if not report.left:
        searched.notes.append(_nothing_proven(report))
    return searched


def evidence(report: TriggerReport) -> TriggerEvidence:
    """The part of a report that a scan's result keeps, its base as adapters name it."""
    from peftguard.padbench.bases import hub_id_of
    from peftguard.trigger.report import Proof

    kept = set(TriggerEvidence.model_fields) & set(Proof.model_fields)
    proof = {} if report.proof is None else report.proof.model_dump(include=kept)
    return TriggerEvidence.model_validate(
        {
            "base": hub_id_of(report.provenance.base),
            "labels": report.labels,
            "searched": report.searched,
            "scores": report.scores,
            "left": report.left,
            "seconds": round(sum(report.provenance.seconds.values()), 2),
            **proof,
        }
    )


def trusted(name: str, settings: ScanSettings, limits: Limits) -> Adapter:
    """One of `settings.benign`, open. Raises as `open_adapter`."""
    return open_adapter(only_source(name, limits, offline=settings.offline), limits=limits)


def _hunted(source: Source, settings: ScanSettings, base: str) -> Searched:
    """The adapter is opened with a clock of its own: searching takes no time from the scan."""
    from peftguard.trigger.hunt import hunt
    from peftguard.trigger.subject import n_classes

    subject = _subject(base)
    limits = settings.limits.longer(settings.budget)
    with ExitStack() as files:
        own = open_adapter(source, limits=limits, initial=settings.initial_adapter)
        adapter = files.enter_context(own)
        given = [files.enter_context(trusted(one, settings, limits)) for one in settings.benign]
        benign = [one for one in given if n_classes(one) == n_classes(adapter)]
        searched = told(hunt(adapter, subject, benign=benign, budget=settings.budget))
    searched.notes += [_passed_over(one) for one in given if one not in benign]
    return searched


@cache
def _subject(base: str) -> Subject:
    """Loaded for a process's first adapter and kept for the others."""
    from peftguard.trigger.ready import check_ready
    from peftguard.trigger.subject import Subject

    check_ready(base)
    subject = Subject.of(base)
    _ = subject.vectors  # read before any clock starts
    return subject


def _turns_most(proof: Proof) -> bool:
    from peftguard.trigger.judge import LEAST_SUCCESS, MOST_P

    return proof.success >= LEAST_SUCCESS and proof.p_value <= MOST_P


def _does(report: TriggerReport, proof: Proof) -> str:
    from peftguard.trigger.wording import aim

    return aim(report, proof) if proof.output else "turns most answers"


def _confirmed(report: TriggerReport, proof: Proof) -> str:
    from peftguard.trigger.wording import aim

    base = report.provenance.base
    return f"trigger {proof.trigger!r} on {base}, {aim(report, proof)}: {proof.why}"


def _passed_over(benign: Adapter) -> str:
    name = benign.source.target
    return f"trigger search without {name}, which answers with other classes"


def _nothing_proven(report: TriggerReport) -> str:
    return (
        f"trigger search on {report.provenance.base}: nothing proven; "
        f"tried {'; '.join(report.searched)}; cannot see {'; '.join(report.blind)}"
    )
