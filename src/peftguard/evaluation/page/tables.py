"""The page's tables: rows of figures with their intervals, cells coloured where that helps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from peftguard.evaluation.measures import AUROC, FPR, Measure, known, main_measure, shown
from peftguard.evaluation.page.charts import Styles, swatch, whisker
from peftguard.evaluation.page.figures import (
    answers,
    figure_text,
    heat_class,
    leaders,
    ranked,
)
from peftguard.evaluation.page.markup import Child, Markup, joined, tag
from peftguard.evaluation.results import LEAK_TEST, Figure, Fold, Metrics, ProtocolResult, Scored

_CORNER = ("trained on ↓", "tested on →")
MAX_ROWS = 200
"""Most rows shown of one table."""


def table(
    label: str,
    heads: Iterable[Child],
    rows: Sequence[Markup],
    *,
    caption: Child = None,
    style: str | None = None,
) -> Markup:
    """A table that scrolls sideways by itself, from the keyboard too."""
    head = tag("tr", *(tag("th", each, scope="col") for each in heads))
    grid = tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", head),
        tag("tbody", *rows[:MAX_ROWS]),
        class_=style,
    )
    box = tag("div", grid, class_="scroll", tabindex=0, role="region", aria_label=label)
    if len(rows) <= MAX_ROWS:
        return box
    rest = f"and {len(rows) - MAX_ROWS:,} more rows, in the JSON report"
    return joined(box, tag("p", rest, class_="quiet"))


def leaderboard(
    measure: Measure, protocols: Sequence[tuple[str, ProtocolResult]], styles: Styles
) -> Markup | None:
    """Detectors by protocol, the one that leads most often first.

    Args:
        measure: what the cells show.
        protocols: (address on the page, protocol) pairs; those without this measure are left out.
        styles: of the detectors, in the order in which they are known.
    """
    held = {
        at: (protocol, {row.detector: row for row in answers(protocol)})
        for at, protocol in protocols
        if any(known(measure.of(row.metrics).value) for row in answers(protocol))
    }
    if not held:
        return None
    best = {at: leaders(measure, rows.values()) for at, (_, rows) in held.items()}
    columns = [(rows, best[at]) for at, (_, rows) in held.items()]
    heads = [
        tag("a", protocol.title, href=f"#{at}", class_="name") for at, (protocol, _) in held.items()
    ]
    present = dict.fromkeys(name for rows, _ in columns for name in rows)
    rows = [
        _row(name, styles, [_board_cell(measure, name, each, led) for each, led in columns])
        for name in sorted(present, key=lambda name: _place(measure, name, columns))
    ]
    return table(f"{measure.name} by protocol", ["Detector", *heads], rows, caption=measure.name)


def _place(
    measure: Measure, name: str, columns: Sequence[tuple[Mapping[str, Scored], set[str]]]
) -> tuple[bool, int, float]:
    found = (measure.of(rows[name].metrics).value for rows, _ in columns if name in rows)
    height = sum(value for value in found if known(value)) if measure.ranked else 0.0
    return name == LEAK_TEST, -sum(name in led for _, led in columns), -height


def _board_cell(measure: Measure, name: str, rows: Mapping[str, Scored], led: set[str]) -> Markup:
    if name not in rows:
        return tag("td", tag("span", "not run", class_="quiet"))
    if rows[name].failed is not None:
        return tag("td", tag("span", "failed", class_="failed"))
    return _cell(measure, measure.of(rows[name].metrics), name in led)


def metrics_table(rows: Sequence[Scored], styles: Styles) -> Markup:
    """Every measure of every detector; the highest of the main one in bold."""
    measures = shown(row.metrics for row in rows)
    rows = ranked(measures[0], rows)
    best = leaders(measures[0], rows)
    heads = ["Detector", *(each.name for each in measures), "Tested", "Seconds to fit, score"]
    lines = [
        _row(row.detector, styles, _metric_cells(row, measures, row.detector in best))
        for row in rows
    ]
    return table("All measures by detector", heads, lines)


def _metric_cells(row: Scored, measures: Sequence[Measure], best: bool) -> list[Markup]:
    if row.failed is not None:
        reason = joined(tag("span", "failed", class_="failed"), ": ", row.failed)
        return [tag("td", reason, colspan=len(measures) + 2)]
    measure, *others = measures
    main = measure.of(row.metrics)
    scale = whisker(main) if measure is AUROC else None
    content = joined(scale, tag("span", figure_text(measure, main), class_="stack"))
    rest = [_cell(each, each.of(row.metrics)) for each in others]
    seconds = f"{row.fit_seconds:.3g}, {row.score_seconds:.3g}"
    return [
        tag("td", content, class_="main best" if best else "main"),
        *rest,
        tag("td", f"{main.n:,}"),
        tag("td", seconds),
    ]


def matrices(protocol: ProtocolResult, styles: Styles) -> Markup | None:
    """Trained on by tested on, a matrix a detector; None where no folds form such a grid."""
    crossed = [fold for fold in protocol.folds if fold.trained_on and fold.tested_on]
    pairs = [(fold.trained_on, fold.tested_on) for fold in crossed]
    trained = {trained_on for trained_on, _ in pairs}
    if len(set(pairs)) < len(pairs) or len(trained) == len(pairs):
        return None
    folds = dict(zip(pairs, crossed, strict=True))
    names = _detectors(crossed)
    return tag("div", *(_matrix(name, folds, styles) for name in names), class_="grids")


def _matrix(
    name: str, folds: Mapping[tuple[str | None, str | None], Fold], styles: Styles
) -> Markup:
    down, across = (list(dict.fromkeys(pair[side] for pair in folds)) for side in (0, 1))
    measure = _measure(list(folds.values()), name)
    scored = {pair: _of(name, fold) for pair, fold in folds.items()}
    rows = [
        tag(
            "tr",
            tag("th", each, scope="row", class_="name"),
            *(_heat_cell(measure, scored.get((each, other)), each == other) for other in across),
        )
        for each in down
    ]
    title = joined(swatch(styles[name]), tag("span", name, class_="name"))
    corner = joined(*(tag("span", each, class_="corner") for each in _CORNER))
    heads = [corner, *(tag("span", each, class_="name") for each in across)]
    return table(f"Transfer of {name}", heads, rows, caption=title, style="matrix")


def folds_table(folds: Sequence[Fold], styles: Styles) -> Markup:
    """A row a fold: how large it is, and each detector's figure."""
    names = _detectors(folds)
    rows = [
        tag(
            "tr",
            tag("th", fold.name, scope="row", class_="name"),
            tag("td", _size(fold.n_train, fold.n_train_backdoored)),
            tag("td", _size(fold.n_test, fold.n_test_backdoored)),
            *(_heat_cell(_measure(folds, name), _of(name, fold)) for name in names),
        )
        for fold in folds
    ]
    heads = ["Fold", "Trained on", "Tested on", *_names(names, styles)]
    return table("Folds", heads, rows, style="heats")


def _size(count: int, backdoored: int) -> Markup:
    return joined(f"{count:,}", tag("small", f"{backdoored:,} backdoored"))


def _measure(folds: Sequence[Fold], name: str) -> Measure:
    return main_measure([row.metrics for fold in folds if (row := _of(name, fold)) is not None])


def group_table(factor: str, rows: Sequence[Scored], styles: Styles) -> Markup:
    """One factor: a row a value, a column a detector."""
    held = {row.detector: row.groups.get(factor, {}) for row in rows}
    values = list(dict.fromkeys(value for groups in held.values() for value in groups))
    measure = main_measure([each for groups in held.values() for each in groups.values()])
    lines = [
        tag(
            "tr",
            tag("th", value, scope="row", class_="name"),
            *(_group_cell(measure, groups.get(value)) for groups in held.values()),
        )
        for value in values
    ]
    caption = joined("By ", tag("span", factor, class_="name"), f": {measure.name}")
    heads = [tag("span", factor, class_="name"), *_names(held, styles)]
    return table(f"Figures by {factor}", heads, lines, caption=caption, style="heats")


def _group_cell(measure: Measure, metrics: Metrics | None) -> Markup:
    figure = measure.of(metrics) if metrics is not None else Figure()
    return tag("td", _counted(measure, figure), class_=heat_class(measure, figure))


def curve_table(curve: Mapping[str, Sequence[tuple[int, Figure]]], styles: Styles) -> Markup:
    """The learning curves as numbers."""
    counts = sorted({n for points in curve.values() for n, _ in points})
    held = {name: dict(points) for name, points in curve.items()}
    rows = [
        tag(
            "tr",
            tag("th", f"{n:,}", scope="row"),
            *(_cell(AUROC, points.get(n, Figure())) for points in held.values()),
        )
        for n in counts
    ]
    return table("Learning curves", ["Training adapters", *_names(held, styles)], rows)


def duds_table(protocols: Sequence[ProtocolResult], styles: Styles) -> Markup | None:
    """Share of poisoned adapters that never fire over the threshold, by detector."""
    folds = [(each, fold) for each in protocols for fold in each.folds if fold.duds_flagged]
    if not folds:
        return None
    names = list(dict.fromkeys(name for _, fold in folds for name in fold.duds_flagged))
    rows = [
        tag(
            "tr",
            tag("th", protocol.title, scope="row"),
            tag("td", fold.name, class_="name"),
            tag("td", f"{fold.n_duds:,}"),
            *(_cell(FPR, fold.duds_flagged.get(name, Figure())) for name in names),
        )
        for protocol, fold in folds
    ]
    return table("Duds flagged", ["Protocol", "Fold", "Duds", *_names(names, styles)], rows)


def leak_table(protocols: Sequence[tuple[str, ProtocolResult]]) -> Markup | None:
    """The recipe-only detector beside the best that looks at weights, protocol by protocol."""
    rows = []
    for at, protocol in protocols:
        scored = ranked(AUROC, answers(protocol))
        leak = next((row for row in scored if row.detector == LEAK_TEST), None)
        if leak is None or not known(leak.metrics.auroc.value):
            continue
        best = scored[0] if scored[0] is not leak else Scored(detector="none")
        rows.append(
            tag(
                "tr",
                tag("th", tag("a", protocol.title, href=f"#{at}"), scope="row"),
                _whisker_cell(leak.metrics.auroc),
                tag("td", leak_reading(leak.metrics.auroc)),
                _whisker_cell(best.metrics.auroc),
                tag("td", tag("span", best.detector, class_="name")),
            )
        )
    heads = ["Protocol", "Recipe alone: AUROC", "Reading", "Highest detector: AUROC", "which is"]
    return table("Leak test", heads, rows) if rows else None


def leak_reading(figure: Figure) -> Markup:
    """What the interval of the recipe-only detector says."""
    low, high = figure.low, figure.high
    if low is None or high is None:
        return tag("span", "no interval", class_="quiet")
    if low > 0.5:
        return tag("span", "leaks: the recipe gives the label away", class_="failed")
    if high < 0.5:
        return tag("span", "below chance: the recipe differs between the folds", class_="failed")
    return tag("span", "holds .5: no leak seen")


def _whisker_cell(figure: Figure) -> Markup:
    text = tag("span", figure_text(AUROC, figure), class_="stack")
    return tag("td", whisker(figure), text, class_="main")


def _row(name: str, styles: Styles, cells: Iterable[Markup]) -> Markup:
    return tag(
        "tr",
        tag("th", swatch(styles[name]), tag("span", name, class_="name"), scope="row"),
        *cells,
        class_="leak" if name == LEAK_TEST else None,
    )


def _cell(measure: Measure, figure: Figure, best: bool = False) -> Markup:
    return tag("td", figure_text(measure, figure), class_="best" if best else None)


def _heat_cell(measure: Measure, row: Scored | None, same: bool = False) -> Markup:
    if row is None:
        return tag("td")
    if row.failed is not None:
        return tag("td", tag("span", "failed", class_="failed"))
    figure = measure.of(row.metrics)
    style = " ".join(filter(None, (heat_class(measure, figure), "same" if same else None)))
    return tag("td", figure_text(measure, figure), class_=style or None)


def _counted(measure: Measure, figure: Figure) -> Markup:
    count = tag("small", f"of {figure.n:,}") if known(figure.value) and figure.n else None
    return joined(figure_text(measure, figure), count)


def _names(names: Iterable[str], styles: Styles) -> list[Markup]:
    return [joined(swatch(styles[each]), tag("span", each, class_="name")) for each in names]


def _detectors(folds: Iterable[Fold]) -> list[str]:
    return list(dict.fromkeys(row.detector for fold in folds for row in fold.detectors))


def _of(name: str, fold: Fold) -> Scored | None:
    return next((row for row in fold.detectors if row.detector == name), None)
