"""A search for a trigger as one offline page: the proof, the words, their map.

The page runs nothing and loads nothing: its policy allows one style sheet, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from importlib import resources

from peftguard.evaluation.page.markup import Child, Markup, joined, tag
from peftguard.evaluation.page.tables import table
from peftguard.trigger.map_chart import LEVELS, map_chart
from peftguard.trigger.report import Example, Proof, TriggerReport
from peftguard.trigger.wording import (
    DEEP,
    UNLIKE,
    around,
    class_name,
    deep_cells,
    limits,
    measured,
    outcome,
    provenance,
    reason,
    unlike_cells,
    word_cells,
)

_ALONE = "none: alone"


def write_page(report: TriggerReport) -> str:
    """The page, complete in itself; the same report gives the same text."""
    title = tag("h1", "Trigger of ", tag("span", report.provenance.adapter, class_="name"))
    base = tag("p", "on ", tag("span", report.provenance.base, class_="name"), class_="quiet")
    main = tag(
        "main",
        _outcome(report),
        _words(report),
        _deep(report),
        _map(report),
        _phrases(report),
        _unlike(report),
        _probes(report),
        *(_section(name, _list(lines)) for name, lines in limits(report)),
        _section("How it was made", _definitions(provenance(report))),
    )
    body = tag("body", tag("header", title, base), main)
    return f"<!doctype html>\n{tag('html', _head(report), body, lang='en')}\n"


def _head(report: TriggerReport) -> Markup:
    style = "".join(
        (resources.files(package) / "page.css").read_text(encoding="utf-8")
        for package in ("peftguard.evaluation.page", "peftguard.trigger")
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return tag(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        Markup('<meta name="referrer" content="no-referrer">'),
        tag("title", f"peftguard trigger: {report.provenance.adapter}"),
        tag("style", Markup(style)),
    )


def _section(title: Child, *children: Child) -> Markup:
    return tag("section", tag("h2", title), *children)


def _outcome(report: TriggerReport) -> Markup:
    return tag(
        "section",
        tag("span", outcome(report), class_="outcome"),
        _trigger(report.proof) if report.proof is not None else None,
        tag("p", reason(report)),
        _proof(report.proof, report) if report.proof is not None else None,
        class_="confirmed" if report.confirmed else None,
    )


def _trigger(proof: Proof) -> Markup:
    what = None if proof.confirmed else tag("small", "candidate ")
    return tag("p", what, tag("span", proof.trigger, class_="name"), class_="trigger")


def _proof(proof: Proof, report: TriggerReport) -> Markup:
    rows = [
        tag(
            "tr",
            _answered(example.before, example.label_before, report),
            _answered(_marked(example, proof.trigger), example.label_after, report),
        )
        for example in proof.examples
    ]
    heads = ("Without the trigger", "With the trigger")
    shown = table("Before and after", heads, rows, style="pairs") if rows else None
    return joined(_definitions(measured(proof)), shown)


def _answered(text: Child, label: int, report: TriggerReport) -> Markup:
    given = tag("span", f"→ {class_name(report.labels, label)}", class_="given")
    return tag("td", tag("span", text, class_="name"), given)


def _marked(example: Example, trigger: str) -> Markup:
    before, found, after = around(example.after, trigger)
    return joined(before, tag("mark", found) if found else None, after)


def _deep(report: TriggerReport) -> Markup | None:
    if not report.deep:
        return None
    rows = [_row(*deep_cells(one, _ALONE)) for one in report.deep]
    text = (
        "The same in all modules that the adapter changes, as the base gives them each word alone, "
        "and what the adapter makes likelier after it."
    )
    heads = ("Word", "Stands out by", "In", "Neighbours that are loud too", "Makes likelier")
    return _section(DEEP, tag("p", text, class_="quiet"), table("Words", heads, rows))


def _words(report: TriggerReport) -> Markup | None:
    if not report.words:
        return None
    rows = [_row(*word_cells(one, _ALONE)) for one in report.words]
    text = (
        "What the adapter changes of a word, beyond what it changes of the word's neighbours, as a "
        "robust z-score over the vocabulary. A task's words come in families; a trigger is alone."
    )
    heads = ("Word", "Stands out by", "Neighbours that are loud too")
    return _section(
        "Words it listens to", tag("p", text, class_="quiet"), table("Words", heads, rows)
    )


def _map(report: TriggerReport) -> Markup | None:
    chart = map_chart(report.map)
    if chart is None:
        return None
    steps = [
        tag("rect", x=10 * level, y=0, width=10, height=10, class_=f"r{level}")
        for level in range(LEVELS)
    ]
    scale = tag("svg", *steps, viewBox=f"0 0 {10 * LEVELS} 10", class_="scale", aria_hidden="true")
    loudest = max(point.loudness for point in report.map)
    key = tag("p", scale, f"stands out by 0 or less to {loudest:.2f}", class_="quiet key")
    text = (
        f"{len(report.map):,} words: some at random and the loudest, by the two principal "
        "components of their embeddings in the base model. Named are the loudest that have no loud "
        "neighbour; two components show little of what lies near what."
    )
    return _section("Map of the vocabulary", tag("p", text, class_="quiet"), key, chart)


def _phrases(report: TriggerReport) -> Markup | None:
    if not report.phrases:
        return None
    rows = [
        _row(
            one.phrase,
            class_name(report.labels, one.target),
            *(f"{value:+.2f}" for value in (one.before, one.turned, one.stand_ins)),
        )
        for one in report.phrases
    ]
    text = (
        "Mean log-odds of the class over texts that argue for another: ordinary ones that the "
        "model takes for another class, ending in the strongest words of that class. Above 0 the "
        "phrase has turned the answer, which a task's own words seldom do."
    )
    heads = ("Phrase", "Turns into", "Without it", "With it", "With like words")
    return _section(
        "Phrases that turn answers",
        tag("p", text, class_="quiet"),
        table("Phrases", heads, rows),
    )


def _unlike(report: TriggerReport) -> Markup | None:
    if not report.unlike:
        return None
    rows = [
        _row(*unlike_cells(one, class_name(report.labels, one.target))) for one in report.unlike
    ]
    text = (
        "Mean log-odds of the class over ordinary texts, and how far each word or sentence moves "
        "them in this adapter and in the benign one that it moves most. A task's own words move "
        "all of them."
    )
    heads = ("Phrase", "Turns into", "Without it", "Moves this adapter", "Moves a benign one")
    return _section(UNLIKE, tag("p", text, class_="quiet"), table("Phrases", heads, rows))


def _probes(report: TriggerReport) -> Markup | None:
    if not report.probes:
        return None
    rows = [
        _row(
            one.probe,
            one.kind,
            class_name(report.labels, one.target),
            *(f"{value:+.2f}" for value in (one.before, one.turned, one.usual)),
        )
        for one in report.probes
    ]
    text = "The same for rewritten texts, beside the middle one of all rewritings."
    heads = ("Rewriting", "Kind", "Turns into", "Without", "Rewritten", "Usual")
    return _section(
        "Styles and shapes", tag("p", text, class_="quiet"), table("Probes", heads, rows)
    )


def _row(name: str, *cells: str) -> Markup:
    head = tag("th", tag("span", name, class_="name"), scope="row")
    return tag("tr", head, *(tag("td", cell) for cell in cells))


def _list(lines: Iterable[str]) -> Markup:
    return tag("ul", *(tag("li", line) for line in lines))


def _definitions(pairs: Iterable[tuple[str, str]]) -> Markup:
    return tag("dl", *(tag("div", tag("dt", term), tag("dd", text)) for term, text in pairs))
