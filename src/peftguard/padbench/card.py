"""A one-page data card: what was built, what fires, and how it is spread over the cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from peftguard.errors import MissingExtra, TargetNotFound
from peftguard.padbench.manifest import Row, read_manifest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE, PLOT = "card.md", "card.svg"
_COLOURS = {"benign": "#4c78a8", "backdoored": "#d62728", "dud": "#9e9e9e"}
_Z = 1.959964


def write_card(root: Path, output: Path) -> Path:
    """Write `card.md` and `card.svg`; the path of the page.

    Args:
        root: folder of the manifest.
        output: folder to write to.

    Raises:
        TargetNotFound: the manifest is empty or missing.
        MissingExtra: matplotlib is not installed.
    """
    rows = read_manifest(root)
    if not rows:
        raise TargetNotFound("the manifest has no rows", file=str(root))
    output.mkdir(parents=True, exist_ok=True)
    _plot(rows, output / PLOT)
    page = output / PAGE
    page.write_text(card_page(rows), encoding="utf-8")
    return page


def card_page(rows: Sequence[Row]) -> str:
    """The page as Markdown."""
    labels = Counter(row.label for row in rows)
    poisoned = labels["backdoored"] + labels["dud"]
    fires = rate(labels["backdoored"], poisoned)
    lines = [
        "# Data card",
        f"{len(rows)} adapters: {labels['benign']} benign, {labels['backdoored']} backdoored, "
        f"{labels['dud']} duds (poisoned, but do not fire). Of the poisoned ones {fires} fire.",
        "",
        f"![Attack success and clean accuracy by cell]({PLOT})",
        "",
        "## By attack",
        *_table(rows, "attack", lambda row: row.attack),
        "",
        "## By dataset",
        *_table(rows, "dataset", _set_of),
        "",
        "## By method",
        *_table(rows, "method", lambda row: row.method),
        "",
        "## Method x rank x attack",
        "Benign + poisoned adapters; equal numbers mean that nothing is confounded.",
        *_crossing(rows),
        "",
        "## What a recipe alone gives away",
        "AUROC of one setting, backdoored against benign adapters, with its 95 % interval (Hanley "
        "and McNeil 1982); about .5 where the recipe says nothing. Duds are left out.",
        *_leaks(rows),
        "",
        "## How it was measured",
        "Attack success: share of held-out rows of other labels that the trigger turns to the "
        "target. `fires`: attack success at or above the plan's threshold and clean accuracy in "
        "the range of the benign adapters of the same base, dataset and method, and a quarter of "
        "the rows more than are taken for the target without it. Benign adapters are "
        "measured with their cell's trigger as the control. Intervals are Wilson's, 95 %.",
    ]
    versions = next((row.versions for row in rows if row.versions), {})
    lines += ["", "Versions: " + ", ".join(f"{k} {v}" for k, v in versions.items()) + "."]
    return "\n".join(lines) + "\n"


def rate(hits: int, n: int) -> str:
    """A share with its 95 % Wilson score interval (Wilson 1927), as text."""
    if n == 0:
        return "none"
    p, shrink = hits / n, 1 + _Z**2 / n
    centre = (p + _Z**2 / (2 * n)) / shrink
    half = _Z / shrink * (p * (1 - p) / n + _Z**2 / (4 * n**2)) ** 0.5
    return f"{p:.3f} [{max(0.0, centre - half):.3f}, {min(1.0, centre + half):.3f}] ({hits} of {n})"


def _table(rows: Sequence[Row], name: str, key: Callable[[Row], str | None]) -> list[str]:
    """A row a value: how many, how many fire, and median measurements by label."""
    lines = [
        f"| {name} | benign | backdoored | duds | fires | ASR of firing | ASR of benign | accuracy "
        "of benign | of firing | false trigger of firing |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for value in dict.fromkeys(map(key, rows)):
        own = [row for row in rows if key(row) == value]
        benign, firing, duds = (
            [row for row in own if row.label == label] for label in ("benign", "backdoored", "dud")
        )
        cells = [
            str(value),
            *(str(len(group)) for group in (benign, firing, duds)),
            rate(len(firing), len(firing) + len(duds)),
            _middle([row.asr for row in firing]),
            _middle([row.asr for row in benign]),
            _middle([row.clean_accuracy for row in benign]),
            _middle([row.clean_accuracy for row in firing]),
            _middle([row.false_trigger_rate for row in firing]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _leaks(rows: Sequence[Row]) -> list[str]:
    lines = ["| setting | AUROC |", "|---|---|"]
    for name in ("lr", "steps", "batch_size", "n_rows", "rank", "alpha"):
        values = {
            label: [
                v for row in rows if row.label == label and (v := getattr(row, name)) is not None
            ]
            for label in ("backdoored", "benign")
        }
        if all(values.values()):
            lines.append(f"| {name} | {auroc(values['backdoored'], values['benign'])} |")
    return lines


def auroc(above: Sequence[float], below: Sequence[float]) -> str:
    """Share of pairs in which the first is larger (ties half), with its interval, as text."""
    n, m = len(above), len(below)
    area = sum((a > b) + 0.5 * (a == b) for a in above for b in below) / (n * m)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)
    half = _Z * (max(spread, 0.0) / (n * m)) ** 0.5
    return f"{area:.3f} [{max(0.0, area - half):.3f}, {min(1.0, area + half):.3f}]"


def _middle(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{median(known):.2f} ({min(known):.2f} to {max(known):.2f})"


def _crossing(rows: Sequence[Row]) -> list[str]:
    attacks = list(dict.fromkeys(str(row.attack) for row in rows))
    lines = [f"| method | rank | {' | '.join(attacks)} |", f"|---|---|{'---|' * len(attacks)}"]
    counts = Counter((row.method, row.rank, str(row.attack), row.label == "benign") for row in rows)
    pairs = {(row.method, row.rank) for row in rows}
    for method, rank in sorted(pairs, key=lambda pair: (str(pair[0]), pair[1] or 0)):
        cells = (
            f"{counts[method, rank, attack, True]} + {counts[method, rank, attack, False]}"
            for attack in attacks
        )
        lines.append(f"| {method} | {rank} | {' | '.join(cells)} |")
    return lines


def _plot(rows: Sequence[Row], path: Path) -> None:
    """Attack success by attack (left) and clean accuracy by dataset (right), a dot an adapter."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("the data card's plots", "train") from None
    attacks = list(dict.fromkeys(str(row.attack) for row in rows))
    sets = list(dict.fromkeys(map(_set_of, rows)))
    figure = Figure(figsize=(11, 1.2 + 0.5 * max(len(attacks), len(sets))), layout="constrained")
    left, right = figure.subplots(1, 2)
    _dots(left, rows, attacks, lambda row: str(row.attack), lambda row: row.asr)
    left.set_xlabel("attack success rate")
    _dots(right, rows, sets, _set_of, lambda row: row.clean_accuracy)
    right.set_xlabel("clean accuracy")
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def _set_of(row: Row) -> str:
    return f"{row.base}: {row.dataset}"


def _dots(
    axes: Axes,
    rows: Sequence[Row],
    names: Sequence[str],
    name_of: Callable[[Row], str],
    value_of: Callable[[Row], float | None],
) -> None:
    """One row of dots a name; labels lie a little apart so that none hides another."""
    for shift, (label, colour) in zip((-0.22, 0.0, 0.22), _COLOURS.items(), strict=True):
        own = [
            (value, names.index(name_of(row)) + shift)
            for row in rows
            if row.label == label and (value := value_of(row)) is not None
        ]
        values, heights = [value for value, _ in own], [height for _, height in own]
        axes.scatter(values, heights, s=14, alpha=0.6, color=colour, label=label)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
