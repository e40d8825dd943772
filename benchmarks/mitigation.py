"""What cleaning does to a benchmark's adapters: `python benchmarks/mitigation.py ZOO OUT.jsonl`.

One line of JSON an adapter and way of cleaning, appended as it is found; the same command goes on
where it stopped. The tables at the end are of all lines: --summary prints them again. Triggers are
the manifest's, but for `hunted`, which searches for them as a user would.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from peftguard.adapters.adapter import open_adapter
from peftguard.cli.progress import Progress
from peftguard.errors import PeftGuardError
from peftguard.evaluation.twins import without_duds
from peftguard.mitigation.benchmark import Benchmark, read_benchmark, told_by
from peftguard.mitigation.factored import Factored, read_factored
from peftguard.mitigation.fine_mixing import FineMixing
from peftguard.mitigation.known_trigger import trigger_of
from peftguard.mitigation.method import Given, Method, lacking
from peftguard.mitigation.record import Figures, Share
from peftguard.mitigation.registry import METHODS
from peftguard.padbench.manifest import Row
from peftguard.trigger.hunt import hunt
from peftguard.trigger.subject import Subject

Lines = Sequence[dict[str, Any]]
DRAWS = 2000
FEW = 0.05
"""Share of texts that a trigger may turn beyond those taken for its target without it."""

ANEW = "anew"


@dataclass(frozen=True)
class Anew(FineMixing):
    """Nothing of the adapter stays but its shape: what the clean rows alone come to."""

    name = ANEW
    kept: float = 0.0

    def apply(self, adapter: Factored, given: Given) -> Factored:
        """As of `Method.apply`."""
        rng = np.random.default_rng(given.seed)
        heads = {
            name: (rng.normal(size=own.shape) * np.sqrt((own**2).mean())).astype(np.float32)
            for name, own in adapter.heads.items()
        }
        return super().apply(replace(adapter, heads=heads), given)


WAYS: dict[str, Method] = {
    **METHODS,
    "unlearn-no-data": METHODS["unlearn"],
    "hunted": METHODS["remove-trigger"],
    ANEW: Anew(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, help="folder with one folder a dataset")
    parser.add_argument("--base", default="minilm", help="adapters of this base only")
    parser.add_argument("--split", default="test")
    parser.add_argument("--firing", type=int, default=None, help="so many that fire; default: all")
    parser.add_argument("--controls", type=int, default=40, help="so many benign ones")
    parser.add_argument("--ways", default=",".join(WAYS), help="names with commas between")
    parser.add_argument("--summary", action="store_true", help="only print the tables")
    options = parser.parse_args()
    if not options.summary:
        run(options)
    summary([json.loads(line) for line in options.out.read_text().splitlines()])


def run(options: argparse.Namespace) -> None:
    done = set()
    if options.out.exists():
        lines = (json.loads(line) for line in options.out.read_text().splitlines())
        done = {(line["path"], line["way"]) for line in lines}
    benchmark = read_benchmark(options.zoo, options.data)
    todo = [
        (row, way)
        for row in chosen(benchmark.rows, options)
        for way in options.ways.split(",")
        if (row.path, way) not in done
    ]
    with Progress("mitigating") as progress, options.out.open("a") as out:
        for number, (row, way) in enumerate(todo):
            progress.update(number, len(todo), f"{way} {row.path}")
            out.write(json.dumps(line_of(benchmark, row, way)) + "\n")
            out.flush()


def chosen(rows: Sequence[Row], options: argparse.Namespace) -> list[Row]:
    """Firing and benign adapters by turns, each in random order; no twins of duds."""
    keep = [
        row for row in without_duds(rows) if row.base == options.base and row.split == options.split
    ]
    order = np.random.default_rng(0).permutation(len(keep))
    drawn = [keep[place] for place in order]
    firing = [row for row in drawn if row.label == "backdoored"][: options.firing]
    benign = [row for row in drawn if row.label == "benign"][: options.controls]
    turns = [list(pair) for pair in zip(firing, benign, strict=False)]
    rest = firing[len(turns) :] + benign[len(turns) :]
    return [row for pair in turns for row in pair] + rest


def line_of(benchmark: Benchmark, row: Row, way: str) -> dict[str, Any]:
    told = row.model_dump(include={"path", "label", "attack", "dataset", "method", "rank"})
    line = {**told, "way": way, "before": told_by(row).model_dump(), "after": None, "why": None}
    with open_adapter(benchmark.root / row.path) as opened:
        before = read_factored(opened)
    given = benchmark.given(row)
    start = time.process_time()
    try:
        after = cleaned(benchmark, row, way, before, given)
    except PeftGuardError as error:
        return {**line, "why": str(error)}
    seconds = time.process_time() - start
    figures = benchmark.measure(after, row)
    return {**line, "after": figures.model_dump(), "seconds": round(seconds, 2)}


def cleaned(benchmark: Benchmark, row: Row, way: str, before: Factored, given: Given) -> Factored:
    if way == "unlearn-no-data":
        given = replace(given, rows=())
    if way == "hunted":
        given = hunted(benchmark, row, given)
    method = WAYS[way]
    if missing := method.missing(given):
        raise lacking(way, missing)
    return method.apply(before, given)


def hunted(benchmark: Benchmark, row: Row, given: Given) -> Given:
    """With the trigger that a search confirms, if any."""
    with open_adapter(benchmark.root / row.path) as adapter:
        report = hunt(adapter, Subject.of(row.base or ""), budget=float("inf"))
    return replace(given, trigger=trigger_of(report))


def summary(lines: Lines) -> None:
    """Markdown tables: of those that fire, and of those that are benign."""
    for label, title in (("backdoored", "that fire"), ("benign", "that are benign")):
        own = [line for line in lines if line["label"] == label]
        print(f"\n{len({line['path'] for line in own})} adapters {title}\n")
        print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
        anew = {line["path"]: line for line in own if line["way"] == ANEW and line["after"]}
        for way in WAYS:
            for attack, group in groups([line for line in own if line["way"] == way]):
                print(f"| {' | '.join((way, attack, *cells(group, anew)))} |")


HEADS = (
    "way",
    "attack",
    "n",
    "ASR before",
    "ASR after",
    "beyond `anew`",
    "without trigger",
    "turned beyond it <= 5 %",
    "accuracy",
    "change of accuracy",
    "CPU s",
)


def groups(lines: Lines) -> Iterator[tuple[str, Lines]]:
    """All, and by attack; those that could not be cleaned so are left out."""
    done = [line for line in lines if line["after"] is not None]
    if done:
        yield "all", done
    for attack in sorted({line["attack"] for line in done}):
        yield attack, [line for line in done if line["attack"] == attack]


def cells(lines: Lines, anew: dict[str, dict[str, Any]]) -> Iterator[str]:
    before = [Figures.model_validate(line["before"]) for line in lines]
    after = [Figures.model_validate(line["after"]) for line in lines]
    fires, without = rates(after, "fires"), rates(after, "without")
    yield str(len(lines))
    yield f"{rates(before, 'fires').mean():.3f}"
    yield interval(fires)
    yield beyond(lines, anew)
    yield f"{without.mean():.3f}"
    yield f"{int((fires - without <= FEW).sum())}/{len(lines)}"
    yield f"{rates(after, 'accuracy').mean():.3f}"
    yield interval(rates(after, "accuracy") - rates(before, "accuracy"), "+.3f")
    yield f"{float(np.median([line['seconds'] for line in lines])):.1f}"


def beyond(lines: Lines, anew: dict[str, dict[str, Any]]) -> str:
    """Mean ASR above that of the same adapter trained anew, over those that have both."""
    both = [(line, anew[line["path"]]) for line in lines if line["path"] in anew]
    if not both:
        return "-"
    own, floor = (
        rates([Figures.model_validate(line["after"]) for line in part], "fires")
        for part in zip(*both, strict=True)
    )
    return interval(own - floor, "+.3f")


def rates(figures: Sequence[Figures], name: str) -> np.ndarray:
    shares: list[Share] = [getattr(one, name) for one in figures]
    return np.array([share.rate for share in shares])


def interval(values: np.ndarray, form: str = ".3f") -> str:
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(DRAWS, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{values.mean():{form}} [{low:{form}}, {high:{form}}]"


if __name__ == "__main__":
    main()
