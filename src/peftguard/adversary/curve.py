"""Detection against what an attack costs: one point a strength, with intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from peftguard.adversary.campaign import Attacked
from peftguard.evaluation.metrics import rate
from peftguard.evaluation.results import Figure

Group = tuple[Attacked, ...]
"""The parts of one attacked adapter."""


@dataclass(frozen=True, slots=True)
class Point:
    """Attacked adapters of one evasion, detector and strength.

    Args:
        evasion: its name.
        detector: who judged; None: nobody.
        strength: of the evasion.
        n: adapters attacked.
        fires: share of those measured that still fire; of nothing if none was measured.
        found: share flagged among those that still fire, or among all if that is not known.
        found_before: share of the same whose originals are flagged.
        uncovered: share of the same that a scan would not judge: `unknown`, never `clean`.
        p_value: median over the same.
        p_value_before: of their originals.
        asr: median over the same.
        clean_accuracy: median over the same.
        change: median over the same.
    """

    evasion: str
    detector: str | None
    strength: float
    n: int
    fires: Figure
    found: Figure
    found_before: Figure
    uncovered: Figure
    p_value: float | None
    p_value_before: float | None
    asr: float | None
    clean_accuracy: float | None
    change: float | None


def curve(lines: Iterable[Attacked], fpr: float = 0.01) -> list[Point]:
    """Points in the order in which they first appear; a flag on one part is a flag on all.

    Args:
        lines: of backdoored adapters only: what becomes of benign ones is no detection.
        fpr: at or below this p-value an adapter is flagged.
    """
    groups: dict[tuple[str, str | None, float], dict[tuple[str, int], list[Attacked]]] = {}
    for line in lines:
        if line.row.label == "benign":
            continue
        key = line.evasion, line.detector, line.strength
        own = groups.setdefault(key, defaultdict(list))
        own[line.original, line.seed].append(line)
    return [
        _point(*key, [tuple(parts) for parts in own.values()], fpr) for key, own in groups.items()
    ]


def _point(
    evasion: str, detector: str | None, strength: float, groups: Sequence[Group], fpr: float
) -> Point:
    measured = [parts for parts in groups if parts[0].fires is not None]
    kept = [parts for parts in measured if parts[0].fires] if measured else list(groups)
    judged = [parts for parts in kept if parts[0].p_value is not None]
    return Point(
        evasion=evasion,
        detector=detector,
        strength=strength,
        n=len(groups),
        fires=_share(parts[0].fires for parts in measured),
        found=_share(any(_is_flagged(part, fpr) for part in parts) for parts in judged),
        found_before=_share(_p(parts[0].p_value_before) <= fpr for parts in judged),
        uncovered=_share(any(part.uncovered for part in parts) for parts in judged),
        p_value=_middle(min(_p(part.p_value) for part in parts) for parts in judged),
        p_value_before=_middle(parts[0].p_value_before for parts in judged),
        asr=_middle(parts[0].asr for parts in kept),
        clean_accuracy=_middle(parts[0].clean_accuracy for parts in kept),
        change=_middle(parts[0].change for parts in kept),
    )


def _p(value: float | None) -> float:
    return 1.0 if value is None else value


def _is_flagged(line: Attacked, fpr: float) -> bool:
    return line.p_value is not None and line.p_value <= fpr and line.uncovered is None


def _share(happened: Iterable[object]) -> Figure:
    """With its Clopper-Pearson interval."""
    return rate(np.array([[bool(one) for one in happened]], dtype=np.bool_))


def _middle(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def shown(point: Point) -> str:
    """The point in one line."""
    words = [f"{point.evasion} {point.strength:g}: {point.n} adapters"]
    if point.fires.n:
        words.append(f"{_figure(point.fires)} still fire")
    else:
        words.append("whether they still fire was not measured")
    if point.found.n:
        words.append(
            f"{point.detector} flags {_figure(point.found)} of them"
            f" ({_number(point.found_before.value)} before)"
        )
        words.append(f"median p {_number(point.p_value_before)} -> {_number(point.p_value)}")
        words.append(f"not covered {_number(point.uncovered.value)}")
    if point.asr is not None:
        words.append(f"ASR {_number(point.asr)}, accuracy {_number(point.clean_accuracy)}")
    words.append(f"change {_number(point.change)}")
    return "; ".join(words)


def _figure(figure: Figure) -> str:
    if figure.value is None:
        return "none"
    return f"{figure.value:.2f} [{figure.low or 0:.2f}, {figure.high or 0:.2f}]"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2g}"
