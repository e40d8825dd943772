"""Whether a cleaned adapter may be used: never because nothing was found."""

from __future__ import annotations

import pytest

from peftguard.mitigation.record import Figures, Rescan, Share, Use
from peftguard.mitigation.rescan import may_be_used
from peftguard.results import Label


def scan(label: Label) -> Rescan:
    return Rescan(label=label, reasons=["why"])


def figures(fires: int, without: int) -> Figures:
    return Figures(fires=Share(hits=fires, n=100), without=Share(hits=without, n=100))


@pytest.mark.parametrize(
    ("rescan", "after", "use"),
    [
        (scan(Label.CLEAN), None, "yes"),
        (scan(Label.CLEAN), figures(12, 10), "yes"),
        (scan(Label.CLEAN), figures(60, 10), "no"),
        (scan(Label.UNKNOWN), None, "unknown"),
        (scan(Label.UNKNOWN), figures(0, 0), "unknown"),
        (scan(Label.SUSPICIOUS), figures(0, 0), "no"),
        (scan(Label.BACKDOORED), None, "no"),
        (None, figures(0, 0), "unknown"),
        (None, figures(90, 10), "no"),
        (None, None, "unknown"),
    ],
)
def test_only_a_scan_that_clears_it_says_yes(
    rescan: Rescan | None, after: Figures | None, use: Use
) -> None:
    found, why = may_be_used(rescan, after)
    assert found == use
    assert why
