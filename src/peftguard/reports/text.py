"""For people at a terminal: the verdict first, then what it rests on and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from peftguard.findings import Finding, Location, Severity
from peftguard.reports.heatstrip import heat_strip
from peftguard.reports.visible import visible
from peftguard.reports.wording import facts, standing, trust, verdict_counts
from peftguard.results import Label, Result, Scan, TriggerEvidence

MAX_FINDINGS = 8
MAX_REASONS = 3

_TAKEN_FOR_GRANTED = {("update", "exact")}
_LABEL_STYLES = {
    Label.CLEAN: "bold green",
    Label.UNKNOWN: "bold yellow",
    Label.SUSPICIOUS: "bold red",
    Label.BACKDOORED: "bold white on red",
}
_SEVERITY_STYLES = {
    Severity.INFO: "dim",
    Severity.LOW: "cyan",
    Severity.MEDIUM: "yellow",
    Severity.HIGH: "red",
    Severity.CRITICAL: "bold white on red",
}


def render(scan: Scan, width: int = 100) -> str:
    """The report without colour, `width` columns wide."""
    file = StringIO()
    console = Console(file=file, width=width, color_system=None, force_terminal=False)
    print_scan(scan, console)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def print_scan(scan: Scan, console: Console) -> None:
    """Print the report; width, colour and character set are the console's.

    Nothing from the adapters is read as markup or passed on as a control character.
    """
    page = _Page(console, console.options.ascii_only)
    if not scan.results:
        page.line(Text("No adapter was scanned.", "bold yellow"))
    for result in scan.results:
        page.result(result)
    if len(scan.results) > 1:
        page.summary(scan.results)


@dataclass(frozen=True, slots=True)
class _Page:
    console: Console
    plain: bool

    def line(self, text: Text, indent: int = 0) -> None:
        text.overflow = "fold"
        self.console.print(Padding(text, (0, 0, 0, indent)), highlight=False)

    def safe(self, text: str, width: int = 200) -> str:
        return visible(text, width, ascii_only=self.plain)

    def result(self, result: Result) -> None:
        title = Text(self.safe(result.target, max(20, self.console.width - 8)), "bold")
        self.console.print(Rule(title, align="left", style="dim"))
        self.verdict(result)
        self.trigger(result.trigger)
        if result.adapter is not None:
            self.line(Text(self.safe(_what(result, self.dot), 600)), 2)
        self.heat(result)
        self.findings(result.findings)
        self.console.print()

    @property
    def dot(self) -> str:
        return " - " if self.plain else " · "

    def verdict(self, result: Result) -> None:
        verdict = result.verdict
        reasons = [self.safe(reason, 600) for reason in verdict.reasons[:MAX_REASONS]]
        more = len(verdict.reasons) - MAX_REASONS
        if more > 0:
            reasons.append(f"and {more} more reasons, see --format json")
        head = Text(f" {verdict.label.upper()} ", _LABEL_STYLES[verdict.label])
        table = Table.grid(padding=(0, 1))
        table.add_row(head, Text("\n".join(reasons), overflow="fold"))
        self.console.print(table)
        self.line(Text(self.safe(standing(verdict))), 2)
        trusted = trust(verdict)
        if trusted is not None:
            self.line(Text(self.safe(trusted, 400), "dim"), 2)

    def trigger(self, found: TriggerEvidence | None) -> None:
        if found is None or found.trigger is None or not found.confirmed:
            return
        from peftguard.trigger.render_text import examples_table

        table = examples_table(found.trigger, found.examples, found.labels, self.console)
        self.console.print(Padding(table, (1, 0, 1, 2)))

    def heat(self, result: Result) -> None:
        lines = list(heat_strip(result, self.console.width - 2, ascii_only=self.plain))
        if lines:
            self.console.print()
        for text in lines:
            self.line(text, 2)

    def findings(self, findings: list[Finding]) -> None:
        if not findings:
            return
        self.console.print()
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True, justify="right")
        table.add_column(overflow="fold")
        worst_first = sorted(findings, key=lambda finding: -finding.severity.rank)
        for finding in worst_first[:MAX_FINDINGS]:
            table.add_row(
                Text(finding.severity.upper(), _SEVERITY_STYLES[finding.severity]),
                self.finding(finding),
            )
        self.console.print(Padding(table, (0, 0, 0, 2)))
        if len(findings) > MAX_FINDINGS:
            more = f"and {len(findings) - MAX_FINDINGS} more, see --format json"
            self.line(Text(more, "dim"), 2)

    def finding(self, finding: Finding) -> Text:
        text = Text()
        text.append(self.safe(finding.code), "bold")
        text.append(f"  {self.safe(finding.message, 300)}")
        place = self.dot.join(self.safe(part, 120) for part in _place(finding.location))
        if place:
            text.append(f"\n{place}", "dim")
        text.append(f"\n-> {self.safe(finding.action)}", "italic")
        return text

    def summary(self, results: list[Result]) -> None:
        self.console.print(Rule(Text("Summary", "bold"), align="left", style="dim"))
        table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim", expand=True)
        table.add_column("verdict", no_wrap=True)
        table.add_column("adapter", overflow="fold", ratio=1)
        table.add_column("method", overflow="fold")
        table.add_column("p", no_wrap=True)
        table.add_column("findings", no_wrap=True)
        for result in sorted(results, key=lambda each: -list(Label).index(each.verdict.label)):
            table.add_row(*self.summary_row(result))
        self.console.print(table)
        counts = ", ".join(f"{count} {label}" for label, count in verdict_counts(results))
        self.line(Text(f"{len(results)} adapters: {counts}", "bold"))

    def summary_row(self, result: Result) -> Iterator[Text]:
        verdict = result.verdict
        yield Text(verdict.label, _LABEL_STYLES[verdict.label])
        yield Text(self.safe(result.target, 120))
        yield Text(self.safe(result.adapter.peft_type, 20) if result.adapter else "-")
        yield Text("-" if verdict.p_value is None else f"{verdict.p_value:.2g}")
        yield Text(_tally(result.findings))


def _what(result: Result, dot: str) -> str:
    pairs = facts(result.adapter) if result.adapter is not None else []
    told = [(name, value) for name, value in pairs if (name, value) not in _TAKEN_FOR_GRANTED]
    return dot.join(value if name == "method" else f"{name} {value}" for name, value in told)


def _place(location: Location) -> list[str]:
    return [part for part in (location.file, location.module, location.tensor) if part]


def _tally(findings: list[Finding]) -> str:
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(f"{counts[level]} {level}" for level in reversed(Severity) if counts[level])
