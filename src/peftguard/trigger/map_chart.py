"""The map of the vocabulary as inline SVG; colours are classes, so that no policy is in the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peftguard.evaluation.page.markup import Markup, tag
from peftguard.trigger.report import MapPoint

WIDTH, HEIGHT, EDGE = 900, 600, 24
LEVELS = 9
_LETTER, _LINE = 7.4, 16.0
"""Size of a letter of a label, on average, and of a line."""

Box = tuple[float, float, float, float]


def map_chart(points: Sequence[MapPoint]) -> Markup | None:
    """Words as points, louder ones darker and larger, over quiet ones; None without points."""
    if not points:
        return None
    loudest = max(max(point.loudness for point in points), 1e-9)
    ordered = sorted(points, key=lambda point: point.loudness)
    named = [point.word for point in reversed(ordered) if point.labelled]
    label = (
        f"Map of {len(points):,} words; loud without a loud neighbour: {', '.join(named) or 'none'}"
    )
    dots = [_dot(point, level_of(point.loudness, loudest)) for point in ordered]
    return tag(
        "svg",
        *dots,
        *_labels([point for point in reversed(ordered) if point.labelled]),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="map",
        role="img",
        aria_label=label,
    )


def level_of(loudness: float, loudest: float) -> int:
    """Step of the colour scale, 0 to `LEVELS` - 1: from the middle of the vocabulary to the top."""
    share = min(1.0, max(0.0, loudness / loudest))
    return round(share * (LEVELS - 1))


def _dot(point: MapPoint, level: int) -> Markup:
    x, y = _place(point)
    title = tag("title", f"{point.word}: {point.loudness:.2f}") if level > LEVELS // 2 else None
    return tag("circle", title, cx=f"{x:.0f}", cy=f"{y:.0f}", r=2 + level // 2, class_=f"r{level}")


def _labels(points: Sequence[MapPoint]) -> Iterator[Markup]:
    """Names beside their points, the loudest first; one that finds no room is left to its title."""
    taken: list[Box] = []
    for point in points:
        word = point.word if len(point.word) <= 24 else f"{point.word[:23]}…"
        for anchor, x, y, box in _rooms(point, _LETTER * len(word)):
            if not any(_touch(box, other) for other in taken):
                taken.append(box)
                yield tag("text", word, x=f"{x:.0f}", y=f"{y:.0f}", text_anchor=anchor)
                break


def _rooms(point: MapPoint, width: float) -> Iterator[tuple[str, float, float, Box]]:
    """Where a label may stand within the picture: right, left, above, below."""
    x, y = _place(point)
    for anchor, dx, dy in (("start", 8, 5), ("end", -8, 5), ("middle", 0, -8), ("middle", 0, 19)):
        left = x + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        box = left, y + dy - _LINE + 4, left + width, y + dy + 4
        if box[0] >= 0 and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT:
            yield anchor, x + dx, y + dy, box


def _touch(one: Box, other: Box) -> bool:
    across = one[0] < other[2] and other[0] < one[2]
    return across and one[1] < other[3] and other[1] < one[3]


def _place(point: MapPoint) -> tuple[float, float]:
    """On the picture; what a report puts beyond its edge stands at the edge."""
    x, y = (min(1.0, max(-1.0, value)) for value in (point.x, point.y))
    return (
        EDGE + (x + 1) / 2 * (WIDTH - 2 * EDGE),
        HEIGHT - EDGE - (y + 1) / 2 * (HEIGHT - 2 * EDGE),
    )
