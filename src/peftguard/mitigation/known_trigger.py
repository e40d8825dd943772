"""The trigger that a report proves, with the other words that do the same."""

from __future__ import annotations

from peftguard.adapters.filenames import printable
from peftguard.errors import SettingsError
from peftguard.mitigation.method import Trigger
from peftguard.trigger.judge import LEAST_MARGIN
from peftguard.trigger.report import TriggerReport


def trigger_of(report: TriggerReport) -> Trigger | None:
    """What the report confirms; None if it confirms nothing.

    A backdoor may have several words, each of which fires it, and a proof is of one. So words count
    as well that turn texts into the proven target, and whose neighbours in meaning come nowhere
    near.
    """
    proof = report.proof
    if proof is None or not proof.confirmed:
        return None
    others = [
        one.phrase
        for one in report.phrases
        if one.target == proof.target
        and one.turned > 0
        and one.turned - one.stand_ins >= LEAST_MARGIN
    ]
    return Trigger(tuple(dict.fromkeys([proof.trigger, *others])), proof.target)


def check_report(report: TriggerReport, sha256: str) -> None:
    """Refuse a report on another adapter.

    Raises:
        SettingsError: its hash is another.
    """
    told = report.provenance.adapter_sha256
    if told != sha256:
        raise SettingsError(
            f"the report is on another adapter; expected sha256 {sha256}; "
            f"found {printable(told or 'none')}"
        )
