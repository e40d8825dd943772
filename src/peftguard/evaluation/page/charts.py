"""Small SVG charts: ROC curves, learning curves, intervals; colours and dashes are classes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from peftguard.evaluation.measures import AUROC, known
from peftguard.evaluation.page.figures import interval, text_of
from peftguard.evaluation.page.markup import Markup, joined, tag
from peftguard.evaluation.results import LEAK_TEST, Figure, Scored

WIDTH, HEIGHT = 360, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 40
COLOURS, DASHES = 7, 4

Styles = Mapping[str, str]
"""The classes of a detector's line."""


def styles_of(detectors: Sequence[str]) -> dict[str, str]:
    """A colour and a dash for each detector, the same all over the page."""
    others = [name for name in detectors if name != LEAK_TEST]
    styles = {
        name: f"line c{at % COLOURS} d{(at + at // COLOURS) % DASHES}"
        for at, name in enumerate(others)
    }
    return styles | {LEAK_TEST: "line leak"}


def roc_chart(rows: Sequence[Scored], styles: Styles) -> Markup | None:
    """True over false positive rate, a line a detector; None where no curve is known."""
    curves = {row.detector: points for row in rows if (points := _finite(row.roc))}
    if not curves:
        return None
    ticks = [(step / 4, f"{step / 4:.2g}") for step in range(5)]
    plot = _plot(
        f"ROC curves of {', '.join(curves)}; the areas are in the table.",
        _axes(ticks, ticks, "false positive rate", "true positive rate"),
        _line([(_x(0.0), _y(0.0)), (_x(1.0), _y(1.0))], "chance"),
        *(
            _line([(_x(x), _y(y)) for x, y in points], styles[name])
            for name, points in reversed(curves.items())
        ),
    )
    areas = {row.detector: text_of(AUROC, row.metrics.auroc.value) for row in rows}
    return _with_legend(plot, {name: areas[name] for name in curves}, styles)


def learning_chart(
    curve: Mapping[str, Sequence[tuple[int, Figure]]], styles: Styles
) -> Markup | None:
    """AUROC over the number of training adapters, on a log scale, with intervals."""
    found = _best_last(curve)
    if not found:
        return None
    at = _log_shares({n for points in found.values() for n, _ in points})
    ends = [end for points in found.values() for _, figure in points for end in _ends(figure)]
    floor = min(5, math.floor(10 * max(0.0, min(ends)))) / 10
    plot = _plot(
        f"Learning curves of {', '.join(found)}; the numbers are in the table.",
        _axes(_apart(at), _tenths(floor), "training adapters", "AUROC"),
        *(
            _series(points, at, floor, styles[name], 3.0 * (place - (len(found) - 1) / 2))
            for place, (name, points) in enumerate(found.items())
        ),
    )
    last = {name: text_of(AUROC, points[-1][1].value) for name, points in found.items()}
    return _with_legend(plot, last, styles)


def _best_last(
    curve: Mapping[str, Sequence[tuple[int, Figure]]],
) -> dict[str, list[tuple[int, Figure]]]:
    """The points that can be drawn, by detector, the one that ends highest first."""
    found = {
        name: points
        for name, given in curve.items()
        if (points := [(n, figure) for n, figure in given if n > 0 and known(figure.value)])
    }
    return dict(sorted(found.items(), key=lambda each: -(each[1][-1][1].value or 0.0)))


def _apart(at: Mapping[int, float]) -> list[tuple[float, str]]:
    """Labels of the counts, without those that would touch the one before."""
    labels: list[tuple[float, str]] = []
    for n, share in at.items():
        if not labels or share - labels[-1][0] > 0.08:
            labels.append((share, str(n)))
    return labels


def _tenths(floor: float) -> list[tuple[float, str]]:
    """Where the tenths from `floor` to 1 stand, and their labels."""
    steps = range(round(10 * floor), 11)
    return [((step / 10 - floor) / (1 - floor), f"{step / 10:g}") for step in steps]


def whisker(figure: Figure) -> Markup | None:
    """Value and interval on a scale from 0 to 1, with a mark at one half."""
    ends = interval(figure)
    if ends is None or not known(figure.value):
        return None
    low, high, value = (4 + 92 * min(1.0, max(0.0, each)) for each in (*ends, figure.value))
    return tag(
        "svg",
        tag("line", x1=50, x2=50, y1=0, y2=14, class_="half"),
        tag("line", x1=4, x2=96, y1=7, y2=7, class_="axis"),
        tag("line", x1=_round(low), x2=_round(high), y1=7, y2=7, class_="reach"),
        tag("circle", cx=_round(value), cy=7, r=3.5, class_="dot"),
        viewBox="0 0 100 14",
        class_="whisker",
        aria_hidden="true",
    )


def _series(
    points: Sequence[tuple[int, Figure]],
    at: Mapping[int, float],
    floor: float,
    style: str,
    aside: float,
) -> Markup:
    """One detector's line; drawn a little aside, so that intervals do not cover each other."""

    def height(value: float) -> float:
        return _y((value - floor) / (1 - floor))

    middle = [(_x(at[n]) + aside, height(figure.value or 0.0)) for n, figure in points]
    bars = [
        _line([(x, height(low)), (x, height(high))], f"{style} bar")
        for (x, _), (_, figure) in zip(middle, points, strict=True)
        for low, high in [interval(figure) or (0.0, 0.0)]
    ]
    dots = [tag("circle", cx=_round(x), cy=_round(y), r=3, class_=style) for x, y in middle]
    return joined(*bars, _line(middle, style), *dots)


def _ends(figure: Figure) -> tuple[float, ...]:
    return interval(figure) or ()


def _log_shares(counts: Iterable[int]) -> dict[int, float]:
    """Where each count stands between the margins, 0 to 1, ascending."""
    ascending = sorted(counts)
    low, high = math.log(ascending[0]), math.log(ascending[-1])
    span = (high - low) or 1.0
    return {count: 0.05 + 0.9 * (math.log(count) - low) / span for count in ascending}


def _finite(roc: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in roc if 0.0 <= x <= 1.0 and 0.0 <= y <= 1.0]


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _round(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _line(points: Iterable[tuple[float, float]], style: str) -> Markup:
    path = " ".join(f"{_round(x)},{_round(y)}" for x, y in points)
    return tag("polyline", points=path, class_=style)


def _plot(label: str, *children: Markup) -> Markup:
    view = f"0 0 {WIDTH} {HEIGHT}"
    return tag("svg", *children, viewBox=view, class_="plot", role="img", aria_label=label)


def _axes(
    across: Iterable[tuple[float, str]], up: Iterable[tuple[float, str]], x_name: str, y_name: str
) -> Markup:
    base = _y(0.0)
    marks = [
        tag("text", text, x=_round(_x(share)), y=base + 15, text_anchor="middle")
        for share, text in across
    ]
    for share, text in up:
        y = _round(_y(share))
        marks.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="axis"))
        marks.append(tag("text", text, x=LEFT - 5, y=_round(_y(share) + 4), text_anchor="end"))
    middle = _round(_y(0.5))
    return joined(
        *marks,
        tag("text", x_name, x=_round(_x(0.5)), y=HEIGHT - 6, text_anchor="middle"),
        tag("text", y_name, text_anchor="middle", transform=f"translate(11 {middle}) rotate(-90)"),
    )


def _with_legend(plot: Markup, numbers: Mapping[str, str], styles: Styles) -> Markup:
    entries = [
        tag("li", swatch(styles[name]), tag("span", name, class_="name"), " ", number)
        for name, number in numbers.items()
    ]
    return tag("figure", plot, tag("ul", *entries, class_="legend"))


def swatch(style: str) -> Markup:
    """A piece of a detector's line."""
    line = tag("line", x1=0, x2=30, y1=6, y2=6, class_=style)
    return tag("svg", line, viewBox="0 0 30 12", class_="swatch", aria_hidden="true")
