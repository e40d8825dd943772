"""An evaluation for the terminal: a table a protocol, a line a detector."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftguard.evaluation.measures import main_measure, shown
from peftguard.evaluation.results import Evaluation, Figure, Fold, ProtocolResult, Scored

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print every protocol, values over their 95 % intervals, then how to read them."""
    counts = evaluation.counts
    console.print(
        f"{evaluation.zoo}: {counts.adapters} adapters, {counts.benign} benign, "
        f"{counts.backdoored} backdoored, {counts.duds} duds; "
        f"{evaluation.seeds} seed{'' if evaluation.seeds == 1 else 's'}; "
        f"manifest {evaluation.manifest_sha256[:12]}",
        markup=False,
    )
    for protocol in evaluation.protocols:
        _print_protocol(protocol, console)
    for note in evaluation.notes:
        console.print(f"- {note}", style="dim", markup=False)


def text_of(evaluation: Evaluation, width: int = 120) -> str:
    """The same without colour."""
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(file=buffer, width=width, color_system=None, highlight=False)
    print_evaluation(evaluation, console)
    return buffer.getvalue()


def _print_protocol(protocol: ProtocolResult, console: Console) -> None:
    console.print(f"\n{protocol.title}: {protocol.question}", style="bold", markup=False)
    if protocol.skipped is not None:
        console.print(f"skipped: {protocol.skipped}", markup=False)
        return
    if protocol.pooled:
        console.print(_metrics(protocol.pooled))
    if len(protocol.folds) > 1 or not protocol.pooled:
        console.print(_by_fold(protocol.folds))
    for line in _failures(protocol):
        console.print(line, markup=False)


def _metrics(rows: Sequence[Scored]) -> Table:
    """A line a detector; columns that would be empty are left out."""
    measures = shown(scored.metrics for scored in rows)
    table = _table("detector", *(measure.name for measure in measures), "fit, s")
    for scored in rows:
        figures = [_shown(measure.of(scored.metrics)) for measure in measures]
        seconds = "" if scored.failed else f"{scored.fit_seconds:.1f}"
        table.add_row(_plain(scored.detector), *figures, seconds)
    return table


def _by_fold(folds: Sequence[Fold]) -> Table:
    """AUROC of every detector on every fold; of benign adapters alone, how many are flagged."""
    names = [scored.detector for scored in folds[0].detectors]
    measure = main_measure([scored.metrics for fold in folds for scored in fold.detectors])
    table = _table(measure.name, "train", "test", "backdoored", *names)
    for fold in folds:
        numbers = [str(n) for n in (fold.n_train, fold.n_test, fold.n_test_backdoored)]
        figures = [_shown(measure.of(scored.metrics)) for scored in fold.detectors]
        table.add_row(_plain(fold.name), *numbers, *figures)
    return table


def _failures(protocol: ProtocolResult) -> list[str]:
    reasons = {
        f"{scored.detector} failed: {scored.failed}"
        for rows in (protocol.pooled, *(fold.detectors for fold in protocol.folds))
        for scored in rows
        if scored.failed is not None
    }
    return sorted(reasons)


def _table(first: str, *others: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first)
    for name in others:
        table.add_column(_plain(name), justify="right")
    return table


def _shown(figure: Figure) -> str:
    """The value over its interval, `.93` over `.88-.97`; a dash where there is none."""
    if figure.value is None or figure.low is None or figure.high is None:
        return "-"
    value, low, high = (
        f"{number:.{digits}f}".removeprefix("0")
        for number, digits in ((figure.value, 3), (figure.low, 2), (figure.high, 2))
    )
    return f"{value}\n{low}-{high}"


def _plain(text: str) -> str:
    """Text that a stranger may have chosen, so without markup or control characters."""
    from rich.markup import escape

    from peftguard.adapters.filenames import printable

    return escape(printable(text))
