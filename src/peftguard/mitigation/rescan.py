"""What a scan says of a cleaned adapter, and whether it may be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peftguard.adapters.adapter import only_source
from peftguard.detectors.registry import load_detectors
from peftguard.limits import Limits
from peftguard.mitigation.record import Figures, Rescan, Use
from peftguard.results import Label
from peftguard.settings import ScanSettings
from peftguard.verdict.judge import judge

STILL_FIRES = 0.1
"""Share of texts that a trigger may turn beyond those taken for its target without it."""


def rescanned(folder: Path, base: str | None, budget: float, benign: Sequence[str] = ()) -> Rescan:
    """Scan an adapter anew, with a search for a trigger if there is a base. Never raises for it.

    Args:
        folder: of the cleaned adapter.
        base: as `peftguard scan --base` takes it.
        budget: seconds after which no further stage of the search begins.
        benign: trusted adapters that the search compares with.
    """
    settings = ScanSettings(base=base, budget=budget, benign=list(benign))
    detectors = load_detectors(searched=base is not None)
    result = judge(only_source(str(folder), Limits()), settings, detectors)
    return Rescan(label=result.verdict.label, reasons=result.verdict.reasons, searched_on=base)


def may_be_used(rescan: Rescan | None, after: Figures | None) -> tuple[Use, list[str]]:
    """Whether a cleaned adapter may be used, and why.

    That nothing is found any more is no proof: only a scan that clears it says yes.
    """
    against = [*_found(rescan), *_fires(after)]
    if against:
        return "no", against
    if rescan is None:
        return "unknown", ["it was not scanned again"]
    if rescan.label is Label.CLEAN:
        return "yes", rescan.reasons
    return "unknown", ["nothing was found any more, which is no proof", *rescan.reasons]


def _found(rescan: Rescan | None) -> list[str]:
    if rescan is None or rescan.label not in (Label.BACKDOORED, Label.SUSPICIOUS):
        return []
    return [f"a scan still calls it {rescan.label}", *rescan.reasons]


def _fires(after: Figures | None) -> list[str]:
    if after is None or after.fires is None or after.without is None:
        return []
    if after.fires.rate - after.without.rate < STILL_FIRES:
        return []
    return [
        f"the known trigger still turns {after.fires.rate:.0%} of texts into its target; "
        f"{after.without.rate:.0%} are taken for that without it"
    ]
