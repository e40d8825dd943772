"""The tables and curves of `adversary.py`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path

from peftguard.adversary.campaign import Attacked
from peftguard.adversary.curve import Point, curve
from peftguard.adversary.registry import evasion_named
from peftguard.evaluation.results import Figure
from peftguard.padbench.card import auroc

NOTHING = "none"
"""Evasion of lines on the originals."""
HUNT = "trigger recovery"
"""Detector of lines on triggers that are proven again."""


def read(out: Path) -> Iterator[Attacked]:
    if out.exists():
        for line in out.read_text().splitlines():
            yield Attacked.model_validate_json(line)


def table(options: argparse.Namespace) -> None:
    lines = list(read(options.out))
    for detector in dict.fromkeys(line.detector for line in lines):
        own = [line for line in lines if line.detector == detector]
        print(f"\n### {detector}\n")
        rates = " | ".join(f"flagged at {rate:.0%} | before" for rate in options.fpr)
        print(
            f"| attack | strength | n | still fire | {rates} "
            "| not covered | AUROC | median p | before | ASR | accuracy | change |"
        )
        print("|" + "---|" * (11 + 2 * len(options.fpr)))
        for (aim, _, _), group in by_attack(own):
            points = [curve(group, rate)[0] for rate in options.fpr]
            print_point(aim, points, against_benign(group, own))
        print_benign(own, options.fpr)
    side_by_side(lines)
    if options.svg:
        plot(lines, options.svg, options.fpr[-1])


def print_benign(lines: Sequence[Attacked], rates: Sequence[float]) -> None:
    """What is flagged that should not be."""
    p_values = [line.p_value for line in lines if line.row.label == "benign"]
    for rate in rates if p_values else ():
        flagged = sum(value is not None and value <= rate for value in p_values)
        print(f"\nUntouched benign adapters: {flagged} of {len(p_values)} flagged at {rate:.0%}")


def side_by_side(lines: Sequence[Attacked]) -> None:
    """AUROC of all detectors, an attack a row: what is aimed at one, and how far it carries."""
    detectors = [one for one in dict.fromkeys(line.detector for line in lines) if one != HUNT]
    rows: dict[str, dict[str | None, str]] = {}
    for detector in detectors:
        own = [line for line in lines if line.detector == detector]
        for key, group in by_attack(own):
            name = f"{drawn_as(key)} {key[2]:g}"
            rows.setdefault(name, {})[detector] = against_benign(group, own)
    print(f"\n### AUROC\n\n| attack | {' | '.join(map(str, detectors))} |")
    print(f"|---|{'---|' * len(detectors)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells.get(one, '-') for one in detectors)} |")


def attack_name(aim: str, strength: float) -> str:
    """An attack's name, with the detector that it was aimed at."""
    return aim.removesuffix("-s0").removesuffix(f"-{strength:g}")


def by_attack(lines: Sequence[Attacked]) -> Iterator[tuple[tuple[str, str, float], list[Attacked]]]:
    """Lines on backdoored adapters, by who was aimed at."""

    def key(line: Attacked) -> tuple[str, str, float]:
        folder = "" if line.evasion == NOTHING else line.row.path.partition("/")[0]
        return folder or NOTHING, line.evasion, line.strength

    order = {line: number for number, line in enumerate(dict.fromkeys(map(key, lines)))}
    poisoned = [line for line in lines if line.row.label != "benign"]
    for name, group in groupby(sorted(poisoned, key=lambda line: order[key(line)]), key):
        yield name, list(group)


def against_benign(group: Sequence[Attacked], everything: Sequence[Attacked]) -> str:
    """AUROC of those that still fire against untouched benign adapters."""
    benign = [
        one.score for one in everything if one.row.label == "benign" and one.score is not None
    ]
    still = [one.score for one in group if one.fires and one.score is not None]
    return auroc(still, benign) if still and benign else "-"


def print_point(aim: str, points: Sequence[Point], area: str) -> None:
    """One row: points of one attack, which differ in the rate alone."""
    point = points[0]
    flagged = [(told(one.found), number(one.found_before.value)) for one in points]
    cells = [
        attack_name(aim, point.strength),
        f"{point.strength:g}",
        str(point.n),
        told(point.fires),
        *chain.from_iterable(flagged),
        number(point.uncovered.value),
        area,
        number(point.p_value),
        number(point.p_value_before),
        number(point.asr),
        number(point.clean_accuracy),
        number(point.change),
    ]
    print(f"| {' | '.join(cells)} |")


def told(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def plot(lines: Sequence[Attacked], path: Path, fpr: float) -> None:
    """A row a detector: flagged among those that still fire, against what the attack costs."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    matplotlib.rcParams["svg.fonttype"] = "none"  # as text: a third of the size
    lines = [line for line in lines if line.detector != HUNT]
    detectors = list(dict.fromkeys(line.detector for line in lines))
    costs = {
        "share that still fires": lambda point: point.fires.value,
        "clean accuracy": lambda point: point.clean_accuracy,
        "change of the update": lambda point: point.change,
    }
    canvas = Canvas(figsize=(12, 2.8 * len(detectors)), layout="constrained")
    axes = canvas.subplots(len(detectors), len(costs), squeeze=False, sharey="row")
    styles = styles_of(lines)
    for row, detector in zip(axes, detectors, strict=True):
        own = [line for line in lines if line.detector == detector]
        points = [(aim, curve(group, fpr)[0]) for aim, group in by_attack(own)]
        for panel, (label, cost) in zip(row, costs.items(), strict=True):
            draw(panel, points, cost, styles)
            panel.set_xlabel(label)
        row[0].set_ylabel(f"{detector}:\nflagged at {fpr:.0%}")
        row[-1].set_xscale("symlog", linthresh=0.01)
    handles, names = axes[0][0].get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside right upper", frameon=False, fontsize=7)
    canvas.savefig(path, metadata={"Date": None})


def drawn_as(key: tuple[str, str, float]) -> str:
    return attack_name(key[0], key[2])


def styles_of(lines: Sequence[Attacked]) -> dict[str, dict[str, object]]:
    """A marker and a colour an attack, the same in every panel; none for exact symmetries."""
    keys = [key for key, _ in by_attack(lines)]
    shown = (key for key in keys if key[1] == NOTHING or not evasion_named(key[1]).exact)
    return {
        name: {"marker": "osv^D"[place % 5], "color": f"C{place % 10}", "markersize": 3}
        for place, name in enumerate(dict.fromkeys(map(drawn_as, shown)))
    }


def draw(
    panel: object,
    points: Sequence[tuple[tuple[str, str, float], Point]],
    cost: object,
    styles: dict[str, dict[str, object]],
) -> None:
    """One line an attack, its strengths joined, with intervals."""
    for name, style in styles.items():
        own = [
            (x, point.found)
            for key, point in points
            if drawn_as(key) == name
            and (x := cost(point)) is not None
            and point.found.value is not None
        ]
        if own:
            xs, ys = [x for x, _ in own], [found.value for _, found in own]
            spread = [
                [found.value - found.low for _, found in own],
                [found.high - found.value for _, found in own],
            ]
            panel.errorbar(xs, ys, yerr=spread, lw=0.7, alpha=0.7, label=name, **style)
    panel.grid(alpha=0.3)
