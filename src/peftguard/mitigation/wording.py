"""What was done to an adapter, and to a benchmark's adapters, as lines of text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from peftguard.mitigation.record import Figures, Mitigation, Share
from peftguard.reports.visible import visible

if TYPE_CHECKING:
    from peftguard.mitigation.zoo import Cleaned
    from peftguard.padbench.manifest import Row

_USE = {
    "yes": "MAY BE USED",
    "no": "NOT TO BE USED",
    "unknown": "UNKNOWN WHETHER IT MAY BE USED",
}
_FIGURES = (
    ("accuracy", "accuracy on clean rows"),
    ("fires", "texts that the trigger turns"),
    ("without", "taken for its target without it"),
)


def told(record: Mitigation) -> list[str]:
    """One adapter."""
    inputs = record.inputs
    lines = [
        f"{visible(record.original)}: {record.method}, {record.seconds:g} s, "
        f"the update changed by {record.change:.0%} of its norm",
        *([f"  trigger: {', '.join(map(visible, inputs.trigger))}"] if inputs.trigger else []),
        *([f"  clean rows: {inputs.n_rows}"] if inputs.n_rows else []),
        *(f"  {line}" for line in _compared(record.before, record.after)),
    ]
    if record.dropped:
        lines.append(
            f"  left out of its config, as it makes PEFT import: {', '.join(record.dropped)}"
        )
    lines.append(_USE[record.use])
    return [*lines, *(f"  {visible(reason, 300)}" for reason in record.why)]


def told_of_all(cleaned: Cleaned) -> list[str]:
    """A benchmark's adapters: means by attack and label, then those that were left out."""
    pairs: dict[tuple[str, bool], list[tuple[Row, Row]]] = defaultdict(list)
    for old, new in zip(cleaned.before, cleaned.after, strict=True):
        pairs[old.attack or "", old.label == "benign"].append((old, new))
    lines = [f"{'attack':12} {'':10} {'n':>4}  ASR before  after  accuracy before  after  fire on"]
    for (attack, benign), own in sorted(pairs.items()):
        was, now = [pair[0] for pair in own], [pair[1] for pair in own]
        fire = sum(row.label == "backdoored" for row in now)
        lines.append(
            f"{attack:12} {'benign' if benign else 'backdoored':10} {len(own):4}  "
            f"{_mean(was, 'asr'):>10}  {_mean(now, 'asr'):>5}  "
            f"{_mean(was, 'clean_accuracy'):>15}  {_mean(now, 'clean_accuracy'):>5}  {fire:>7}"
        )
    return [
        *lines,
        *(f"left out: {visible(path)}: {why}" for path, why in cleaned.left_out.items()),
    ]


def _compared(before: Figures | None, after: Figures | None) -> Iterator[str]:
    for name, text in _FIGURES:
        old, new = (getattr(figures, name, None) for figures in (before, after))
        if new is not None:
            yield f"{text}: {_share(old)} -> {_share(new)}"


def _share(share: Share | None) -> str:
    return "?" if share is None else f"{share.hits}/{share.n} ({share.rate:.1%})"


def _mean(rows: Sequence[Row], column: str) -> str:
    values = [getattr(row, column) for row in rows if getattr(row, column) is not None]
    return f"{sum(values) / len(values):.3f}" if values else "-"
