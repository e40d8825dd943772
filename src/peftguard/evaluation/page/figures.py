"""What the page says of one figure: its text, its interval, its place on a scale, who leads."""

from __future__ import annotations

from collections.abc import Iterable

from peftguard.evaluation.measures import AUROC, Measure, known
from peftguard.evaluation.page.markup import Markup, joined, tag
from peftguard.evaluation.results import LEAK_TEST, Figure, ProtocolResult, Scored

MISSING = "\N{EN DASH}"


def text_of(measure: Measure, value: float | None) -> str:
    """The number alone."""
    if not known(value):
        return MISSING
    return f"{value:.1%}" if measure.percent else f"{value:.3f}"


def interval(figure: Figure) -> tuple[float, float] | None:
    """Both ends, (value, value) where there is no interval; None where there is no value."""
    value, low, high = figure.value, figure.low, figure.high
    if not known(value):
        return None
    return (low, high) if known(low) and known(high) else (value, value)


def figure_text(measure: Measure, figure: Figure) -> Markup:
    """The value over its interval."""
    if not known(figure.value):
        return tag("span", MISSING, class_="quiet", title="not defined here")
    ends = None
    if known(figure.low) and known(figure.high):
        low, high = text_of(measure, figure.low), text_of(measure, figure.high)
        ends = tag("small", f"{low.removesuffix('%')}{MISSING}{high}")
    return joined(tag("span", text_of(measure, figure.value), class_="value"), ends)


def heat_class(measure: Measure, figure: Figure) -> str | None:
    """Colour of a cell: AUROC by its distance from chance on either side, a rate by its size."""
    value = figure.value
    if not known(value):
        return None
    if measure is not AUROC:
        return f"heat above l{_level(value)}"
    return f"heat {'above' if value >= 0.5 else 'below'} l{_level(abs(2 * value - 1))}"


def _level(share: float) -> int:
    return round(10 * min(1.0, max(0.0, share)))


def leaders(measure: Measure, rows: Iterable[Scored]) -> set[str]:
    """The highest, and all whose interval reaches into the interval of the highest."""
    found = {
        row.detector: (measure.of(row.metrics).value or 0.0, ends)
        for row in rows
        if row.detector != LEAK_TEST and (ends := interval(measure.of(row.metrics))) is not None
    }
    if not measure.ranked or not found:
        return set()
    _, (floor, _) = max(found.values())
    return {detector for detector, (_, (_, high)) in found.items() if high >= floor}


def answers(protocol: ProtocolResult) -> list[Scored]:
    """A protocol's figures as a whole: pooled, or those of its only fold."""
    if protocol.pooled or len(protocol.folds) != 1:
        return protocol.pooled
    return protocol.folds[0].detectors


def ranked(measure: Measure, rows: Iterable[Scored]) -> list[Scored]:
    """Highest first, then those without a figure; the leak test last."""

    def place(row: Scored) -> tuple[bool, bool, float]:
        value = measure.of(row.metrics).value
        height = value if known(value) and measure.ranked else 0.0
        return row.detector == LEAK_TEST, not known(value), -height

    return sorted(rows, key=place)
