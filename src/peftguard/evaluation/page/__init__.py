"""An evaluation as one offline page: leaderboard, curves, transfer, and what makes it again.

The page runs nothing and loads nothing: its policy allows one style sheet, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

from peftguard.evaluation.measures import AUROC, FPR, TPR_AT_1
from peftguard.evaluation.page.charts import Styles, learning_chart, roc_chart, styles_of
from peftguard.evaluation.page.figures import answers, ranked
from peftguard.evaluation.page.markup import Child, Markup, joined, tag
from peftguard.evaluation.page.tables import (
    curve_table,
    duds_table,
    folds_table,
    group_table,
    leaderboard,
    leak_table,
    matrices,
    metrics_table,
)
from peftguard.evaluation.results import Evaluation, Fold, ProtocolResult

__all__ = ["write_page"]

_BOLD = (
    "Values stand over their 95 % intervals. Bold: the highest of a column, and all whose interval "
    "reaches into the interval of the highest: among those no difference is shown."
)


def write_page(evaluation: Evaluation) -> str:
    """The page, complete in itself; the same evaluation gives the same text."""
    protocols = [(f"protocol-{at}", each) for at, each in enumerate(evaluation.protocols)]
    measured = [(at, each) for at, each in protocols if each.skipped is None]
    styles = styles_of(_detectors(evaluation.protocols))
    body = joined(
        _header(evaluation),
        tag(
            "main",
            _notes(evaluation),
            _board(measured, styles),
            _leaks(measured),
            *(_protocol(at, each, styles) for at, each in measured),
            _duds(evaluation, styles),
            _skipped(evaluation.protocols),
            _provenance(evaluation),
        ),
    )
    return f"<!doctype html>\n{tag('html', _head(evaluation), tag('body', body), lang='en')}\n"


def _head(evaluation: Evaluation) -> Markup:
    style = (resources.files(__name__) / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return tag(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        Markup('<meta name="referrer" content="no-referrer">'),
        tag("title", f"peftguard evaluation: {evaluation.zoo}"),
        tag("style", Markup(style)),
    )


def _header(evaluation: Evaluation) -> Markup:
    counts = evaluation.counts
    line = (
        f"{counts.adapters:,} adapters: {counts.benign:,} benign, {counts.backdoored:,} with a "
        f"backdoor that fires, {counts.duds:,} duds. {counts.train:,} to train on, "
        f"{counts.test:,} to test. {evaluation.seeds} seeds."
    )
    title = tag("h1", "Detectors on ", tag("span", evaluation.zoo, class_="name"))
    return tag("header", title, tag("p", line, class_="quiet"))


def _section(title: Child, *children: Child, at: str | None = None) -> Markup:
    return tag("section", tag("h2", title), *children, id=at)


def _notes(evaluation: Evaluation) -> Markup | None:
    if not evaluation.notes:
        return None
    return _section("How to read this", tag("ul", *(tag("li", note) for note in evaluation.notes)))


def _board(protocols: Sequence[tuple[str, ProtocolResult]], styles: Styles) -> Markup:
    boards = [leaderboard(measure, protocols, styles) for measure in (AUROC, TPR_AT_1)]
    benign_only = [
        (at, each)
        for at, each in protocols
        if all(row.metrics.auroc.value is None for row in answers(each))
    ]
    boards.append(leaderboard(FPR, benign_only, styles))
    if not any(boards):
        return _section("Leaderboard", tag("p", "No protocol was measured.", class_="quiet"))
    shown = tag("div", *boards, class_="grids")
    return _section("Leaderboard", tag("p", _BOLD, class_="quiet"), shown)


def _leaks(protocols: Sequence[tuple[str, ProtocolResult]]) -> Markup:
    purpose = tag(
        "p",
        "A detector that sees the training recipe only (learning rate, steps, rank, ...) and no "
        "weights. Where it does better than .5, so can any other detector, without having found a "
        "backdoor.",
        class_="quiet",
    )
    absent = tag("p", "It was not run: these figures may owe something to the recipe.")
    return _section("Leak test", purpose, leak_table(protocols) or absent)


def _protocol(at: str, protocol: ProtocolResult, styles: Styles) -> Markup:
    whole = answers(protocol)
    rows = ranked(AUROC, whole)
    charts = [
        part
        for part in (roc_chart(rows, styles), learning_chart(protocol.curve, styles))
        if part is not None
    ]
    return _section(
        protocol.title,
        tag("p", protocol.question),
        metrics_table(whole, styles) if whole else None,
        tag("div", *charts, class_="charts") if charts else None,
        curve_table(protocol.curve, styles) if protocol.curve else None,
        _folds(protocol, styles),
        _groups(protocol, styles),
        at=at,
    )


def _folds(protocol: ProtocolResult, styles: Styles) -> Markup | None:
    if not protocol.folds:
        return None
    grids = matrices(protocol, styles)
    key = tag(
        "p",
        tag("span", class_="ramp"),
        "AUROC 0, .5 and 1: orange is below chance, the verdict turned round.",
        class_="quiet key",
    )
    folds = joined(folds_table(protocol.folds, styles), _failures(protocol.folds))
    if grids is not None:
        return joined(tag("h3", "Transfer"), key, grids, _more("Folds, one by one", folds))
    if len(protocol.folds) == 1:
        return _more("Its only fold", folds)
    return joined(tag("h3", "Fold by fold"), key, folds)


def _failures(folds: Sequence[Fold]) -> Markup | None:
    """Each reason once, with the folds that it holds for."""
    where: dict[tuple[str, str], list[str]] = {}
    for fold in folds:
        for row in fold.detectors:
            if row.failed is not None:
                where.setdefault((row.detector, row.failed), []).append(fold.name)
    lines = [
        tag("li", f"{detector} failed on {', '.join(names)}: {reason}")
        for (detector, reason), names in where.items()
    ]
    return tag("ul", *lines) if lines else None


def _groups(protocol: ProtocolResult, styles: Styles) -> Markup | None:
    rows = ranked(AUROC, answers(protocol))
    factors = list(dict.fromkeys(factor for row in rows for factor in row.groups))
    if not factors:
        return None
    tables = [group_table(factor, rows, styles) for factor in factors]
    return _more(f"By {', '.join(factors)}", *tables)


def _more(title: str, *children: Child) -> Markup:
    return tag("details", tag("summary", title), *children)


def _duds(evaluation: Evaluation, styles: Styles) -> Markup | None:
    found = duds_table([each for each in evaluation.protocols if each.skipped is None], styles)
    if found is None:
        return None
    text = (
        "Poisoned adapters whose backdoor does not fire. They count neither as backdoored nor as "
        "benign; here is the share of them over each detector's threshold. Their benign twins, "
        "where the manifest tells them, are left out."
    )
    return _section("Duds", tag("p", text, class_="quiet"), _more("Protocol by protocol", found))


def _skipped(protocols: Sequence[ProtocolResult]) -> Markup | None:
    pairs = [(each.title, each.skipped) for each in protocols if each.skipped is not None]
    return _section("Not measured", _definitions(pairs)) if pairs else None


def _provenance(evaluation: Evaluation) -> Markup:
    pairs = [
        ("peftguard", evaluation.peftguard),
        *evaluation.versions.items(),
        ("benchmark", evaluation.zoo),
        ("SHA-256 of its manifest", evaluation.manifest_sha256),
        ("seeds", str(evaluation.seeds)),
        ("threshold's false-positive rate", f"{evaluation.fpr:.3g}"),
        ("schema", evaluation.schema_version),
    ]
    command = tag("pre", tag("code", evaluation.command)) if evaluation.command else None
    again = tag("p", "The same figures again:") if command else None
    return _section("Where this comes from", again, command, _definitions(pairs))


def _definitions(pairs: Sequence[tuple[str, str | None]]) -> Markup:
    rows = [tag("div", tag("dt", term), tag("dd", text)) for term, text in pairs]
    return tag("dl", *rows)


def _detectors(protocols: Sequence[ProtocolResult]) -> list[str]:
    """Every name that the page shows, so that each has a style."""
    names: dict[str, None] = {}
    for protocol in protocols:
        for rows in (protocol.pooled, *(fold.detectors for fold in protocol.folds)):
            names.update(dict.fromkeys(row.detector for row in rows))
        names.update(dict.fromkeys(protocol.curve))
        for fold in protocol.folds:
            names.update(dict.fromkeys(fold.duds_flagged))
    return list(names)
