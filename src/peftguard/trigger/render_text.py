"""A search for a trigger, for people at a terminal: the proof first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from peftguard.reports.visible import visible
from peftguard.trigger.replay import Replay, ReplayedExample
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

_FOUND, _OPEN, _SAME = "bold white on red", "bold yellow", "bold green"


def as_text(show: Callable[[Console], None], width: int = 100) -> str:
    """What `show` prints, without colour, `width` columns wide."""
    file = StringIO()
    show(Console(file=file, width=width, color_system=None, force_terminal=False))
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def print_report(report: TriggerReport, console: Console) -> None:
    """Print a report; nothing in it is read as markup or passed on as a control character."""
    page = _Page(console, report.labels)
    page.rule(report.provenance.adapter)
    page.outcome(report)
    page.words(report)
    page.phrases(report)
    page.unlike(report)
    page.probes(report)
    for title, lines in limits(report):
        page.title(title)
        for line in lines:
            page.line(f"- {page.safe(line)}")
    page.title("How it was made")
    page.pairs(provenance(report))


def print_replay(replay: Replay, console: Console) -> None:
    """Print what the model says now of every example. Safe as `print_report`."""
    page = _Page(console, replay.labels)
    page.rule(replay.adapter)
    turned = sum(example.reproduced for example in replay.examples)
    text = f" {turned} of {len(replay.examples)} examples as reported "
    console.print(Text(text, _SAME if replay.reproduced else _FOUND))
    console.print(page.examples(replay.trigger, replay.examples))


def examples_table(
    trigger: str, examples: Sequence[Example], labels: Mapping[int, str], console: Console
) -> Table:
    """Texts without and with a trigger, side by side. Safe as `print_report`."""
    return _Page(console, labels).examples(trigger, examples)


@dataclass(frozen=True, slots=True)
class _Page:
    console: Console
    labels: Mapping[int, str]

    def safe(self, text: str, width: int = 400) -> str:
        return visible(text, width, ascii_only=self.console.options.ascii_only)

    def name(self, number: int) -> str:
        return self.safe(class_name(self.labels, number), 40)

    def rule(self, text: str) -> None:
        title = Text(self.safe(text, max(20, self.console.width - 8)), "bold")
        self.console.print(Rule(title, align="left", style="dim"))

    def title(self, text: str) -> None:
        self.console.print()
        self.console.print(Text(text, "bold"))

    def line(self, text: str) -> None:
        self.console.print(Padding(Text(text, overflow="fold"), (0, 0, 0, 2)))

    def pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.console.print(Padding(self.grid(pairs), (0, 0, 0, 2)))

    def grid(self, pairs: Iterable[tuple[str, str]]) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in pairs:
            grid.add_row(name, Text(self.safe(value)))
        return grid

    def outcome(self, report: TriggerReport) -> None:
        style = _FOUND if report.confirmed else _OPEN
        head = Text(f" {outcome(report)} ", style)
        parts: list[RenderableType] = [Text(self.safe(reason(report), 600), overflow="fold")]
        if report.proof is not None:
            parts += self.proof(report.proof)
        border = "red" if report.confirmed else "yellow"
        self.console.print(Panel(Group(*parts), title=head, title_align="left", style=border))

    def proof(self, proof: Proof) -> Iterable[RenderableType]:
        what = "trigger" if proof.confirmed else "candidate"
        yield Text.assemble((f"\n{what}  ", "dim"), (self.safe(proof.trigger), "bold"), "\n")
        yield self.grid(measured(proof))
        if proof.examples:
            yield Text()
            yield self.examples(proof.trigger, proof.examples)

    def examples(self, trigger: str, examples: Sequence[Example | ReplayedExample]) -> Table:
        """Texts without and with the trigger, side by side, each over its class."""
        table = Table(expand=True, show_lines=True, padding=(0, 1), style="dim")
        table.add_column("without the trigger", overflow="fold", ratio=1)
        table.add_column("with the trigger", overflow="fold", ratio=1)
        for example in examples:
            told = example if isinstance(example, Example) else example.reported
            table.add_row(
                Text.assemble(self.safe(told.before), "\n", self.label(example, "label_before")),
                Text.assemble(
                    *self.marked(told.after, trigger), "\n", self.label(example, "label_after")
                ),
            )
        return table

    def marked(self, text: str, trigger: str) -> list[Text]:
        styles = ("", "bold reverse", "")
        parts = zip(around(text, trigger), styles, strict=True)
        return [Text(self.safe(part), style) for part, style in parts]

    def label(self, example: Example | ReplayedExample, key: str) -> Text:
        now = int(getattr(example, key))
        text = f"-> {self.name(now)}"
        if isinstance(example, Example) or now == getattr(example.reported, key):
            return Text(text, "bold")
        told = self.name(getattr(example.reported, key))
        return Text(f"{text}, reported {told}", _FOUND)

    def words(self, report: TriggerReport) -> None:
        rows = [word_cells(one, "alone") for one in report.words]
        self.table("Words it listens to", ("word", "stands out by", "loud neighbours"), rows)
        deep = [deep_cells(one, "alone") for one in report.deep]
        self.table(DEEP, ("word", "stands out by", "in", "loud neighbours", "makes likelier"), deep)

    def phrases(self, report: TriggerReport) -> None:
        rows = [
            (
                one.phrase,
                self.name(one.target),
                f"{one.before:+.1f}",
                f"{one.turned:+.1f}",
                f"{one.stand_ins:+.1f}",
            )
            for one in report.phrases
        ]
        heads = ("phrase", "turns into", "without", "with it", "like words")
        self.table("Phrases that turn texts arguing otherwise (log-odds)", heads, rows)

    def probes(self, report: TriggerReport) -> None:
        rows = [
            (
                f"{one.probe} ({one.kind})",
                self.name(one.target),
                f"{one.before:+.1f}",
                f"{one.turned:+.1f}",
                f"{one.usual:+.1f}",
            )
            for one in report.probes
        ]
        heads = ("style or shape", "turns into", "without", "rewritten", "usual")
        self.table("Styles and shapes that turn texts arguing otherwise (log-odds)", heads, rows)

    def unlike(self, report: TriggerReport) -> None:
        rows = [unlike_cells(one, self.name(one.target)) for one in report.unlike]
        self.table(UNLIKE, ("phrase", "turns into", "without", "here", "benign"), rows)

    def table(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if not rows:
            return
        self.title(title)
        table = Table(box=None, padding=(0, 1), header_style="dim")
        for head in heads:
            table.add_column(head, overflow="fold")
        for row in rows:
            table.add_row(*(Text(self.safe(cell, 120)) for cell in row))
        self.console.print(table)
