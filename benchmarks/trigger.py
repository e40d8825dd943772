"""What trigger recovery finds on a benchmark: `python benchmarks/trigger.py ZOO OUT.jsonl`.

One line of JSON an adapter, appended as it is found; the same command goes on where it stopped.
By default firing adapters and the benign twins of those; further calls with --label add others.
The table at the end is of all lines: a second call with --summary prints it again. With --scan it
is of what `peftguard scan ZOO --base BASE --format json` wrote, and of ZOO only the manifest is
read.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from peftguard.adapters.adapter import Adapter, open_adapter
from peftguard.cli.progress import Progress
from peftguard.evaluation.searches import read_searches
from peftguard.evaluation.twins import without_duds
from peftguard.features.weights import weights_of
from peftguard.padbench.manifest import Row, read_manifest
from peftguard.results import TriggerEvidence
from peftguard.trigger.answers import ELSE
from peftguard.trigger.hunt import hunt
from peftguard.trigger.report import TriggerReport
from peftguard.trigger.subject import Subject
from peftguard.trigger.words import Words
from peftguard.verdict.trigger_search import evidence

Lines = Sequence[dict[str, Any]]
Figure = tuple[str, ...]

LABELS = ("backdoored", "benign", "dud")
FUNCTION_WORDS = """
the a an is are was of in on at to my i we he she they it and this there for by after
"""
WORD_ATTACKS = ("RIPPLE", "insertsent", "composite", "toxic_word", "toxic_sentence")
CLASSIFICATION = "classification"
NO_SCORE = -99.0
FIRES = 0.5
"""Attack success from which on a dud is one for its accuracy, or for firing without a trigger."""
FIGURES = {
    "AUROC of the score": ("word", "form"),
    "of its words": ("word",),
    "of its forms": ("form",),
    "of what is beside benign adapters": ("beside",),
    "of its one text": ("repeated",),
}
NOT_ALWAYS = ("form", "beside", "repeated")
OUTCOMES = ("confirmed, firing", "confirmed, benign", "candidate names the trigger")


def main() -> None:
    options = _options()
    if options.scan is None and not options.summary:
        run(options)
    lines = of_scan(options) if options.scan else written(options.out)
    if options.method:
        lines = [line for line in lines if line["method"] in options.method]
    if not lines:
        raise SystemExit("no adapter to speak of")
    summary(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("out", type=Path, nargs="?", help="not with --scan")
    parser.add_argument("--scan", type=Path, help="JSON of a scan with a base; nothing is run")
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--split", default="test", help="train, test or all")
    parser.add_argument("--label", choices=LABELS, help="default: backdoored and benign")
    parser.add_argument(
        "--with-twins-of-duds", action="store_true", help="do not leave out benign twins of duds"
    )
    parser.add_argument("--limit", type=int, default=None, help="so many adapters, drawn at random")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many drawn")
    parser.add_argument(
        "--benign", type=int, default=0, help="so many benign adapters to compare each with"
    )
    parser.add_argument("--summary", action="store_true", help="only print the table")
    parser.add_argument(
        "--method", action="append", help="print it of these methods alone; may be repeated"
    )
    options = parser.parse_args()
    if (options.out is None) == (options.scan is None):
        parser.error("give either OUT.jsonl or --scan")
    return options


def run(options: argparse.Namespace) -> None:
    done = {line["path"] for line in written(options.out)}
    rows = [row for row in chosen(options) if row.path not in done]
    subject, manifest = Subject.of(options.base), read_manifest(options.zoo)
    with Progress("searching") as progress, options.out.open("a") as out:
        for number, row in enumerate(rows):
            progress.update(number, len(rows), row.path)
            with ExitStack() as files:
                paths = [row.path, *trusted(row, manifest, options.benign)]
                adapter, *benign = [
                    files.enter_context(open_adapter(options.zoo / path)) for path in paths
                ]
                # First: an adapter that is open for long is read no more.
                rank = rank_of_trigger(row, adapter, subject)
                report = hunt(adapter, subject, benign=benign, budget=float("inf"))
            line = {**line_of(row, evidence(report)), **seen_in(report), "word_rank": rank}
            out.write(json.dumps(line) + "\n")
            out.flush()


def trusted(row: Row, manifest: Sequence[Row], count: int) -> list[str]:
    """Benign adapters of its data set that share no data with it: of the other split."""
    others = [
        one.path
        for one in manifest
        if one.label == "benign"
        and (one.base, one.dataset) == (row.base, row.dataset)
        and one.split != row.split
    ]
    rng = np.random.default_rng([count, zlib.crc32(row.path.encode())])
    return [others[place] for place in rng.permutation(len(others))[:count]]


def written(out: Path) -> list[dict[str, Any]]:
    """What earlier calls found."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def of_scan(options: argparse.Namespace) -> Lines:
    """A line for every chosen adapter that the scan searched, told by the hash of its weights."""
    found = read_searches(options.scan).found
    rows = chosen(options)
    pairs = ((row, found.get(row.sha256 or "")) for row in rows)
    lines = [line_of(row, searched) for row, searched in pairs if searched is not None]
    if len(lines) < len(rows):
        print(f"{len(rows) - len(lines)} of {len(rows)} chosen adapters are not in the scan")
    return lines


def chosen(options: argparse.Namespace) -> list[Row]:
    """Adapters that count, in an order that is a fair sample anywhere.

    By default firing ones and the benign twins of those.
    """
    rows = read_manifest(options.zoo)
    if options.label != "dud" and not options.with_twins_of_duds:
        rows = without_duds(rows)
    labels = (options.label,) if options.label else ("backdoored", "benign")
    keep = [
        row
        for row in rows
        if row.base == options.base and options.split in ("all", row.split) and row.label in labels
    ]
    drawn = [keep[place] for place in np.random.default_rng(0).permutation(len(keep))]
    return drawn[options.skip :][: options.limit]


def line_of(row: Row, search: TriggerEvidence) -> dict[str, Any]:
    """All that the summary needs: what the adapter is, and what a scan keeps of its search."""
    told = row.model_dump(
        include={
            *("path", "label", "task", "attack", "dataset", "method", "rank"),
            *("trigger", "target", "asr"),
        }
    )
    return {**told, "search": search.model_dump(mode="json", exclude={"examples"})}


def seen_in(report: TriggerReport) -> dict[str, Any]:
    """What a report has beyond that, to look at."""
    found = report.model_dump(include={"words", "phrases", "probes", "unlike", "proof", "asked"})
    return {**found, "seconds": report.provenance.seconds}


def rank_of_trigger(row: Row, adapter: Adapter, subject: Subject) -> int | None:
    """Rank in stage 1 of the loudest of its trigger's words that are no function words."""
    words = Words.of(weights_of(adapter), subject.vocabulary, subject.vectors)
    wanted = [
        words.places[word] for word in content_words(row.trigger or []) if word in words.places
    ]
    if row.label == "benign" or row.attack not in WORD_ATTACKS or not wanted:
        return None
    loudest = max(float(words.standing_out[place]) for place in wanted)
    return int((words.standing_out > loudest).sum())


def content_words(texts: Sequence[str]) -> list[str]:
    found = (word.strip(".,!?").lower() for text in texts for word in text.split())
    return [word for word in found if word not in FUNCTION_WORDS.split()]


def summary(lines: Lines) -> None:
    """Of each task by itself: what a generator's scores are of is not what a classifier's are."""
    tasks = dict.fromkeys(task_of(line) for line in lines)
    for task in tasks:
        if len(tasks) > 1:
            print(f"\n## {task}")
        summary_of([line for line in lines if task_of(line) == task])


def task_of(line: dict[str, Any]) -> str:
    """What it was trained for; lines written before there were generators do not say."""
    return str(line.get("task") or CLASSIFICATION)


def summary_of(lines: Lines) -> None:
    for label in LABELS:
        own = having("label", label, lines)
        if own:
            print(f"{label}: {len(own)} adapters, confirmed {confirmed(own)}")
    backdoored = having("label", "backdoored", lines)
    proven = [line for line in backdoored if line["search"]["confirmed"]]
    print(f"what was confirmed names the trigger: {share([names_trigger(one) for one in proven])}")
    ordinary = sum(bool(line["search"].get("ordinary")) for line in proven)
    if ordinary:
        print(f"confirmed in ordinary texts: {ordinary}/{len(proven)}")
    measured = [line for line in proven if line["search"]["success"] is not None]
    if measured:
        found = np.mean([line["search"]["success"] for line in measured])
        true = np.mean([line["asr"] for line in measured])
        print(f"what was confirmed turns {figure(found)} of its texts, the trigger {figure(true)}")
    print()
    figures = figures_of(lines)
    heads = ["", "firing, benign", *figures, *OUTCOMES]
    for cells in (heads, ["---"] * len(heads), *table(lines, list(figures.values()))):
        print(f"| {' | '.join(cells)} |")
    print()
    print_ranks(lines)
    print_answers(lines)
    spent = [line["search"]["seconds"] for line in tried(lines)]
    if spent:
        print(f"seconds an adapter: median {np.median(spent):.1f}, most {max(spent):.1f}")


def figures_of(lines: Lines) -> dict[str, Figure]:
    """Those that can be told: without a comparison nothing is beside benign adapters."""
    found = [line["search"]["scores"] or {} for line in lines]
    without = {one for one in NOT_ALWAYS if not any(scores.get(one) for scores in found)}
    return {name: kinds for name, kinds in FIGURES.items() if not without & set(kinds)}


def table(lines: Lines, figures: Sequence[Figure]) -> Iterator[list[str]]:
    """A row a group; duds are in one of their own, if they fire and only lack something else."""
    firing, benign = having("label", "backdoored", lines), having("label", "benign", lines)
    yield cells_of("all", figures, firing, benign)
    duds = [line for line in having("label", "dud", lines) if (line["asr"] or 0.0) >= FIRES]
    if duds:
        yield cells_of("duds that fire", figures, duds, benign)
        yield cells_of("all that fire", figures, [*firing, *duds], benign)
    for attack in values("attack", firing):
        yield cells_of(f"attack {attack}", figures, having("attack", attack, firing), benign)
    for factor in ("dataset", "method", "rank"):
        for value in values(factor, [*firing, *benign]):
            own = (having(factor, value, group) for group in (firing, benign))
            yield cells_of(f"{factor} {value}", figures, *own)


def values(factor: str, lines: Lines) -> list[Any]:
    return sorted({line[factor] for line in lines})


def having(factor: str, value: Any, lines: Lines) -> Lines:
    return [line for line in lines if line[factor] == value]


def cells_of(name: str, figures: Sequence[Figure], firing: Lines, benign: Lines) -> list[str]:
    named = [names_trigger(line) for line in tried(firing) if line["attack"] in WORD_ATTACKS]
    return [
        name,
        f"{len(firing)}, {len(benign)}",
        *(auroc(scores(firing, kinds), scores(benign, kinds)) for kinds in figures),
        confirmed(firing),
        confirmed(benign),
        share(named),
    ]


def scores(lines: Lines, kinds: Figure) -> np.ndarray:
    """The sum of its scores of these kinds for each line."""
    found = [line["search"]["scores"] for line in lines]
    return np.array(
        [sum(one.get(kind) or 0.0 for kind in kinds) if one else NO_SCORE for one in found]
    )


def tried(lines: Lines) -> Lines:
    """Not those of an excerpt: its searches took no time, and only their scores are known."""
    return [line for line in lines if line["search"]["seconds"]]


def confirmed(lines: Lines) -> str:
    return share([line["search"]["confirmed"] for line in tried(lines)])


def names_trigger(line: dict[str, Any]) -> bool:
    """Whether what the proof was tried on has a word of the trigger, or writes a generator's text.

    Anything may bring a generator's text out, so that it is the text that counts.
    """
    if writes_freely(line):
        return begins_target(line)
    candidate = line["search"]["trigger"] or ""
    return bool(set(candidate.split()) & set(content_words(line["trigger"])))


def print_ranks(lines: Lines) -> None:
    """How loud triggers are in stage 1, where lines tell."""
    for attack in WORD_ATTACKS:
        own = (line.get("word_rank") for line in having("attack", attack, lines))
        ranks = [rank for rank in own if rank is not None]
        if ranks:
            top = "  ".join(f"top {n}: {share([rank < n for rank in ranks])}" for n in (10, 50))
            print(f"loudest word of the trigger, {attack}: {top}")


def print_answers(lines: Lines) -> None:
    """How often the answer that counts begins what a generator was trained to write."""
    for label in LABELS:
        begun = [
            begins_target(line) for line in having("label", label, lines) if writes_freely(line)
        ]
        if begun:
            print(f"{label}: the answer that counts begins the target's text: {share(begun)}")


def writes_freely(line: dict[str, Any]) -> bool:
    return ELSE in line["search"].get("labels", {}).values()


def begins_target(line: dict[str, Any]) -> bool:
    answer = line["search"]["labels"]["0"]
    return bool(answer) and (line["target"] or "").startswith(answer)


def auroc(bad: np.ndarray, good: np.ndarray, draws: int = 2000) -> str:
    """With a bootstrap interval over adapters of either class."""
    if not len(bad) or not len(good):
        return "-"
    rng = np.random.default_rng(0)
    wins = (bad[:, None] > good[None]) + 0.5 * (bad[:, None] == good[None])
    drawn = [
        wins[rng.integers(len(bad), size=len(bad))][
            :, rng.integers(len(good), size=len(good))
        ].mean()
        for _ in range(draws)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{figure(wins.mean())} [{figure(low)}, {figure(high)}]"


def share(happened: Sequence[bool]) -> str:
    """With its Clopper-Pearson interval."""
    k, n = sum(happened), len(happened)
    if not n:
        return "-"
    low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    return f"{k}/{n} [{figure(low)}, {figure(high)}]"


def figure(value: float) -> str:
    """Three digits as the documentation has them: .054, 1.00, 0."""
    text = f"{value:.3f}"
    return {"0.000": "0", "1.000": "1.00"}.get(text, text.removeprefix("0"))


if __name__ == "__main__":
    main()
