"""How robust detectors are: attacks on firing adapters of a benchmark's test split.

    python benchmarks/adversary.py train ZOO DETECTORS
    python benchmarks/adversary.py run ZOO WORK OUT.jsonl --detectors DETECTORS --data DATA
    python benchmarks/adversary.py table OUT.jsonl --svg adversary.svg
    python benchmarks/adversary.py rounds ZOO WORK --data DATA

`train` fits detectors on the training split alone. `run` attacks, measures and judges every adapter
by every detector: one line of JSON an adapter and detector, appended as it comes; the same command
goes on where it stopped. `table` prints Markdown and plots the curves. `rounds` trains on what was
attacked and attacks again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from adversary_table import HUNT, NOTHING, number, read, table, told
from peftguard.adapters.adapter import open_adapter
from peftguard.adversary.campaign import Attacked, Campaign
from peftguard.adversary.curve import Point, curve
from peftguard.adversary.differentiable import DIFFERENTIABLE
from peftguard.adversary.evasion import Evasion, Need
from peftguard.adversary.measuring import Measuring
from peftguard.adversary.registry import EVASIONS, evasion_named
from peftguard.adversary.target import Judged, judged
from peftguard.adversary.victims import Victims, as_built, drawn, find_victims
from peftguard.cli.progress import Progress
from peftguard.detectors.bundle import load_bundle, save_bundle
from peftguard.detectors.trained import TrainedDetector
from peftguard.detectors.training import Options, train
from peftguard.evaluation.searches import read_searches
from peftguard.evaluation.zoo import Entry, Zoo, read_zoo
from peftguard.features.weights import weights_of

KINDS = ("ensemble", "outputs", "gram", "linear", "spectral")
FREE = {
    "gauge": (1.0,),
    "pad": (4.0,),
    "split": (10.0,),
    "svd": (1.0,),
    "int8": (1.0,),
    "nf4": (1.0,),
    "prune": (0.3, 0.5),
    "rescale": (0.75, 0.5),
    "noise": (0.3, 1.0),
    "merge": (0.2, 0.4, 0.6),
    "merge-svd": (0.4,),
    "add": (0.5, 1.0),
    "spectrum": (1.0,),
    "collude": (1.0,),
    "finetune": (100.0,),
}
"""Attacks that ask no detector, and their strengths."""
AIMED = {
    "fgsm": (0.1, 0.3),
    "i-fgsm": (0.1,),
    "pgd-inf": (0.03, 0.1, 0.3),
    "pgd-2": (0.1, 0.3),
    "cw": (0.0,),
    "joint": (0.1, 1.0),
}
"""Attacks on the first of the detectors; all others judge what comes of it."""
ON_OTHERS = {"pgd-2": (0.3,), "search": (0.3,)}
"""Attacks on each of the others: the first where it has a gradient, else the second."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, verb in VERBS.items():
        verb(verbs.add_parser(name))
    options = parser.parse_args()
    {"train": train_all, "run": run, "table": table, "rounds": rounds}[options.verb](options)


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("zoo", type=Path)
    parser.add_argument("detectors", type=Path)
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--base", default="minilm")


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("zoo", type=Path)
    parser.add_argument("work", type=Path, help="folder for attacked adapters")
    parser.add_argument("out", type=Path)
    parser.add_argument("--detectors", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", default=KINDS, help="the first is the one aimed at")
    parser.add_argument("--attacks", nargs="+", default=None, help="default: all but joint")
    parser.add_argument(
        "--hunt",
        type=Path,
        default=None,
        metavar="SCAN.json",
        help="search again where this scan of the originals with --base confirmed a trigger",
    )
    _common(parser)


def _table_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path)
    parser.add_argument("--svg", type=Path)
    parser.add_argument(
        "--fpr", type=float, nargs="+", default=[0.01], help="flagged is p at or below this"
    )


def _rounds_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("zoo", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kind", default="ensemble")
    parser.add_argument("--attack", default="pgd-2")
    parser.add_argument("--strength", type=float, default=0.3)
    parser.add_argument("--count", type=int, default=3, help="rounds")
    _fpr(parser)
    _common(parser)


def _fpr(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fpr", type=float, default=0.01, help="flagged is p at or below this")


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--limit", type=int, default=None, help="adapters, drawn at random")
    parser.add_argument("--rows", type=int, default=64, help="held-out rows of each kind")


VERBS = {
    "train": _train_options,
    "run": _run_options,
    "table": _table_options,
    "rounds": _rounds_options,
}


def train_all(options: argparse.Namespace) -> None:
    zoo = training_split(options.zoo, options.base)
    for kind in options.kinds:
        if not (options.detectors / kind).exists():
            save_bundle(train(zoo, Options(kind)), options.detectors / kind)
            print(f"trained {kind} on {len(zoo.entries)} adapters", flush=True)


def training_split(root: Path, base: str) -> Zoo:
    with Progress("reading") as progress:
        zoo = read_zoo(root, progress.update, base=base)
    entries = [entry for entry in zoo.entries if entry.row.split == "train"]
    return Zoo(zoo.name, zoo.manifest_sha256, entries)


def firing(options: argparse.Namespace, split: str, labels: Sequence[str]) -> Victims:
    found = find_victims(options.zoo, labels=labels, split=split)
    own = [one for one in found.chosen if one.row and one.row.base == options.base]
    return drawn(Victims(own, found.rows, found.root), options.limit, 0)


class Judges:
    """Detectors, and what they have said so far."""

    def __init__(self, detectors: dict[str, TrainedDetector], out: Path) -> None:
        self.detectors, self.out = detectors, out
        self.done = {(line.row.path, line.detector) for line in read(out)}

        self._before: dict[tuple[str, Path], Judged] = {}

    def judge(self, lines: Sequence[Attacked], folder: Path, originals: Path) -> None:
        """What every detector says of attacked adapters and of their originals."""
        for line in lines:
            for kind, detector in self.detectors.items():
                if (line.row.path, kind) not in self.done:
                    original = kind, originals / line.original
                    if original not in self._before:
                        self._before[original] = judged(detector, original[1])
                    now = judged(detector, folder / line.row.path)
                    self.add(line, kind, self._before[original], now)

    def add(self, line: Attacked, kind: str, before: Judged, now: Judged) -> None:
        """Append what one of them said."""
        told = {
            "detector": kind,
            "score_before": before.score,
            "p_value_before": before.p_value,
            "score": now.score,
            "p_value": now.p_value,
            "uncovered": now.uncovered,
        }
        self.done.add((line.row.path, kind))
        with self.out.open("a") as file:
            file.write(line.model_copy(update=told).model_dump_json() + "\n")


def run(options: argparse.Namespace) -> None:
    detectors = {kind: load_bundle(options.detectors / kind) for kind in options.kinds}
    victims = firing(options, "test", ("backdoored",))
    judges = Judges(detectors, options.out)
    benign = find_victims(options.zoo, labels=("benign",), split="test").chosen
    originals = [*victims.chosen, *(one for one in benign if one.row.base == options.base)]
    proven = proven_before(victims, options.hunt) if options.hunt else {}
    judges.judge([untouched(one) for one in originals], victims.root, victims.root)
    measuring = Measuring(options.data, as_built(victims.root, "test_share"), options.rows)
    for evasion, strengths, target in plan(options, detectors):
        means = None if evasion.exact else measuring
        campaign = Campaign(evasion, options.work, detector=target, measuring=means)
        with Progress(f"{evasion.name}") as progress:
            lines, skipped = campaign.run(victims, strengths, progress.update)
        judges.judge(lines, options.work, victims.root)
        print(f"{evasion.name}: {len(lines)} attacked, {len(skipped)} left out", flush=True)
        hunt_again([line for line in lines if line.original in proven], proven, options, judges)


def plan(
    options: argparse.Namespace, detectors: dict[str, TrainedDetector]
) -> Iterator[tuple[Evasion, tuple[float, ...], TrainedDetector | None]]:
    """Evasions with their strengths, and who they are aimed at."""
    wanted = options.attacks or [name for name in EVASIONS if name != "joint"]
    first, *others = options.kinds
    for name in wanted:
        evasion = evasion_named(name)
        if Need.DETECTOR not in evasion.needs:
            if name in FREE:
                yield evasion, FREE[name], None
            continue
        if name in AIMED:
            yield evasion, AIMED[name], detectors[first]
        for kind in others:
            if name == ("pgd-2" if kind in DIFFERENTIABLE else "search"):
                yield evasion, ON_OTHERS[name], detectors[kind]


def untouched(victim: object) -> Attacked:
    return Attacked(
        original=victim.name,
        evasion=NOTHING,
        strength=0.0,
        seed=0,
        part=0,
        n_parts=1,
        change=0.0,
        asr=victim.row.asr,
        clean_accuracy=victim.row.clean_accuracy,
        fires=victim.row.label == "backdoored",
        row=victim.row,
    )


def proven_before(victims: Victims, scan: Path) -> dict[str, float]:
    """Score of the search on every adapter whose trigger a scan confirmed, by its name."""
    searches = read_searches(scan).found
    found = {one.name: searches.get(one.row.sha256 or "") for one in victims.chosen}
    return {
        name: search.scores.word + search.scores.form
        for name, search in found.items()
        if search is not None and search.confirmed and search.scores is not None
    }


def hunt_again(
    lines: Sequence[Attacked],
    proven: dict[str, float],
    options: argparse.Namespace,
    judges: Judges,
) -> None:
    """Trigger recovery as one more judge: p is 0 where a trigger is proven, else 1."""
    from peftguard.trigger.hunt import hunt
    from peftguard.trigger.subject import Subject

    todo = [line for line in lines if (line.row.path, HUNT) not in judges.done and line.fires]
    if not todo:
        return
    subject = Subject.of(options.base)
    for line in todo:
        with open_adapter(options.work / line.row.path) as adapter:
            report = hunt(adapter, subject, budget=float("inf"))
        now = Judged(report.score or 0.0, 0.0 if report.confirmed else 1.0, None)
        judges.add(line, HUNT, Judged(proven[line.original], 0.0, None), now)


def rounds(options: argparse.Namespace) -> None:
    """Train, attack the test split; attack the training split, add it, train again."""
    zoo = training_split(options.zoo, options.base)
    test = firing(options, "test", ("backdoored",))
    learning = firing(options, "train", ("backdoored", "benign"))
    measuring = Measuring(options.data, as_built(test.root, "test_share"), options.rows)
    evasion, more = evasion_named(options.attack), list[Entry]()
    for number_of in range(options.count):
        detector = trained(zoo, more, options, number_of)
        work = options.work / f"round{number_of}"
        campaign = Campaign(evasion, work, detector=detector, measuring=measuring)
        with Progress(f"round {number_of}") as progress:
            lines, _ = campaign.run(test, [options.strength], progress.update)
        report(number_of, detector, len(more), curve(lines, options.fpr)[0])
        if number_of + 1 < options.count:
            with Progress(f"round {number_of}, training split") as progress:
                lines, _ = campaign.run(learning, [options.strength], progress.update)
            more += [entry_of(work, line) for line in lines]


def trained(
    zoo: Zoo, more: Sequence[Entry], options: argparse.Namespace, number_of: int
) -> TrainedDetector:
    folder = options.work / f"detector{number_of}"
    if not folder.exists():
        both = Zoo(zoo.name, zoo.manifest_sha256, [*zoo.entries, *more])
        save_bundle(train(both, Options(options.kind)), folder)
    return load_bundle(folder)


def entry_of(work: Path, line: Attacked) -> Entry:
    with open_adapter(work / line.row.path) as adapter:
        row = line.row.model_copy(update={"path": f"{work.name}/{line.row.path}"})
        return Entry(row, weights_of(adapter))


def report(number_of: int, detector: TrainedDetector, n_more: int, point: Point) -> None:
    at = detector.training.metrics.at[0]
    found = {
        "round": number_of,
        "attacked_in_training": n_more,
        "auroc_in_domain": detector.training.metrics.auroc.value,
        "tpr_in_domain": at.true_positive_rate.value,
        "fires": told(point.fires),
        "flagged_untouched": number(point.found_before.value),
        "flagged_attacked": told(point.found),
        "median_p": [number(point.p_value_before), number(point.p_value)],
        "not_covered": number(point.uncovered.value),
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
