"""What trigger recovery finds on a benchmark: `python benchmarks/trigger.py ZOO OUT.jsonl`.

One line of JSON an adapter, appended as it is found; the same command goes on where it stopped.
The table at the end is of all lines: a second call with --summary prints it again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from peftguard.adapters.adapter import Adapter, open_adapter
from peftguard.cli.progress import Progress
from peftguard.evaluation.twins import without_duds
from peftguard.features.weights import weights_of
from peftguard.padbench.manifest import Row, read_manifest
from peftguard.trigger.hunt import hunt
from peftguard.trigger.subject import Subject
from peftguard.trigger.words import Words

FUNCTION_WORDS = """
the a an is are was of in on at to my i we he she they it and this there for by after
"""
WORD_ATTACKS = ("RIPPLE", "insertsent", "composite", "toxic_word", "toxic_sentence")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--split", default="test")
    parser.add_argument("--label", default=None, help="benign or backdoored; default: both")
    parser.add_argument("--limit", type=int, default=None, help="so many adapters, drawn at random")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many drawn")
    parser.add_argument("--summary", action="store_true", help="only print the table")
    options = parser.parse_args()
    if not options.summary:
        run(options)
    summary([json.loads(line) for line in options.out.read_text().splitlines()])


def run(options: argparse.Namespace) -> None:
    done = set()
    if options.out.exists():
        done = {json.loads(line)["path"] for line in options.out.read_text().splitlines()}
    rows = [row for row in chosen(options) if row.path not in done]
    subject = Subject.of(options.base)
    with Progress("searching") as progress, options.out.open("a") as out:
        for number, row in enumerate(rows):
            progress.update(number, len(rows), row.path)
            with open_adapter(options.zoo / row.path) as adapter:
                report = hunt(adapter, subject, budget=float("inf"))
                rank = rank_of_trigger(row, adapter, subject)
            out.write(json.dumps({**line_of(row, report), "word_rank": rank}) + "\n")
            out.flush()


def chosen(options: argparse.Namespace) -> list[Row]:
    """Firing adapters and the benign twins of those, in an order that is a fair sample anywhere."""
    keep = [
        row
        for row in without_duds(read_manifest(options.zoo))
        if row.base == options.base
        and row.split == options.split
        and options.label in (None, row.label)
    ]
    drawn = [keep[place] for place in np.random.default_rng(0).permutation(len(keep))]
    return drawn[options.skip :][: options.limit]


def line_of(row: Row, report: Any) -> dict[str, Any]:
    told = row.model_dump(
        include={"path", "label", "attack", "dataset", "method", "rank", "trigger", "target", "asr"}
    )
    found = report.model_dump(include={"words", "phrases", "probes", "proof", "asked", "labels"})
    return {**told, **found, "score": report.score, "seconds": report.provenance.seconds}


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


def summary(lines: Sequence[dict[str, Any]]) -> None:
    positive = np.array([line["label"] == "backdoored" for line in lines])
    scores = np.array([-99.0 if line["score"] is None else line["score"] for line in lines])
    confirmed = np.array([bool(line["proof"] and line["proof"]["confirmed"]) for line in lines])
    print(f"{len(lines)} adapters, {positive.sum()} with a backdoor that fires")
    print(f"confirmed among benign: {share(confirmed[~positive])}")
    print(f"{'':12} {'n':>4} {'AUROC':>22}  {'confirmed':>22}  right word named")
    for name, mask in groups(lines, positive):
        own = [line for line, keep in zip(lines, mask & positive, strict=True) if keep]
        named = [names_trigger(line) for line in own if line["attack"] in WORD_ATTACKS]
        print(
            f"{name:12} {len(own):4} {auroc(scores[mask & positive], scores[mask & ~positive])}  "
            f"{share(confirmed[mask & positive])}  {share(np.array(named)) if named else ''}"
        )
    for attack in WORD_ATTACKS:
        own = [line["word_rank"] for line in lines if line["attack"] == attack]
        ranks = np.array([rank for rank in own if rank is not None])
        top = "  ".join(f"top {most}: {share(ranks < most)}" for most in (10, 50))
        print(f"loudest word of the trigger, {attack}: {top}")
    spent = [sum(line["seconds"].values()) for line in lines]
    print(f"seconds an adapter: median {np.median(spent):.1f}, most {max(spent):.1f}")


def groups(
    lines: Sequence[dict[str, Any]], positive: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """All; by attack (against every benign adapter); by dataset, method and rank."""
    yield "all", np.ones(len(lines), dtype=bool)
    for attack in sorted({line["attack"] for line in lines}):
        yield attack, np.array([line["attack"] == attack for line in lines]) | ~positive
    for factor in ("dataset", "method", "rank"):
        values = sorted({line[factor] for line in lines})
        for value in values:
            yield str(value), np.array([line[factor] == value for line in lines])


def names_trigger(line: dict[str, Any]) -> bool:
    """Whether the best phrase, of any class, has a word of the trigger."""
    words = content_words(line["trigger"])
    return bool(line["phrases"]) and line["phrases"][0]["phrase"] in words


def auroc(bad: np.ndarray, good: np.ndarray, draws: int = 2000) -> str:
    """With a bootstrap interval over adapters of either class."""
    if not len(bad) or not len(good):
        return " " * 22
    rng = np.random.default_rng(0)
    wins = (bad[:, None] > good[None]) + 0.5 * (bad[:, None] == good[None])
    values = [
        wins[rng.integers(len(bad), size=len(bad))][
            :, rng.integers(len(good), size=len(good))
        ].mean()
        for _ in range(draws)
    ]
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{wins.mean():8.3f} [{low:.3f}, {high:.3f}]"


def share(happened: np.ndarray) -> str:
    """With its Clopper-Pearson interval."""
    k, n = int(happened.sum()), len(happened)
    if not n:
        return " " * 22
    low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    return f"{k:3}/{n:<3} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
