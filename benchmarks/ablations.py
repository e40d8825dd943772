"""What of an update carries: directions or output spaces, queries or values, means or spreads.

Leaves one value of a factor out in turn, over all adapters of MiniLM but duds and their twins, and
prints AUROC pooled over the turns with a bootstrap interval over adapters. Scores are not
calibrated per turn: compare rows of one column.

    python benchmarks/ablations.py mini/ --json ablations.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from machine import machine_line
from peftguard.detectors.registry import estimator_named
from peftguard.detectors.response import vocabulary_at_hand
from peftguard.evaluation.zoo import Entry, read_zoo
from peftguard.features.attention import standing_alone
from peftguard.features.memory import Memory

Floats = np.ndarray
Score = Callable[[Floats, Floats], Floats]
"""Places of training and of test adapters to scores of the latter."""
DRAWS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    read = read_zoo(options.zoo, base=options.base)
    entries = [read.entries[place] for place in read.members() if read.trains(place)]
    labels = np.array([int(entry.positive) for entry in entries])
    scores = {**kernels(entries, labels), **lone_words(entries, labels)}
    factors = ("attack", "dataset", "method", "rank")
    found = {
        name: {factor: left_out(entries, labels, factor, score) for factor in factors}
        for name, score in scores.items()
    }
    show(found, f"{read.name}: {len(entries)} adapters, {labels.sum()} backdoored", factors)
    if options.json:
        record = {"manifest_sha256": read.manifest_sha256, "auroc": found}
        options.json.write_text(json.dumps(record, indent=1), encoding="utf-8")


def kernels(entries: Sequence[Entry], labels: Floats) -> dict[str, Score]:
    """Kernel machines on two descriptions of an update, and our sum."""
    X = [entry.weights for entry in entries]
    memory = Memory()
    memory.expect(X)

    def of(kind: str) -> Score:
        def score(train: Floats, test: Floats) -> Floats:
            model = estimator_named(kind, memory=memory, seed=0)
            model.fit([X[place] for place in train], labels[train])
            return model.decision_function([X[place] for place in test])

        return score

    return {kind: of(kind) for kind in ("gram", "outputs", "ensemble")}


def lone_words(entries: Sequence[Entry], labels: Floats) -> dict[str, Score]:
    """The loudest word less a crowd, by role and by how benign adapters are allowed for."""
    vocabulary = vocabulary_at_hand(entries[0].weights.base_model)
    assert vocabulary is not None, "the base model's package is not installed"
    maps = np.stack([standing_alone(entry.weights, vocabulary) for entry in entries])
    queries, values = maps[:, 0], maps[:, 2]

    def of(read: Floats, allowed: str) -> Score:
        def score(train: Floats, test: Floats) -> Floats:
            benign = read[train[labels[train] == 0]]
            far = read[test] - (benign.mean(axis=0) if allowed != "nothing" else 0)
            return lone(far / (benign.std(axis=0) + 0.3) if allowed == "spread" else far)

        return score

    return {
        "words in queries, as they are": of(queries, "nothing"),
        "words in queries, less the benign mean": of(queries, "mean"),
        "words in queries, in benign spreads": of(queries, "spread"),
        "words in values, in benign spreads": of(values, "spread"),
        "words in both, in benign spreads": of(queries + values, "spread"),
    }


def lone(far: Floats) -> Floats:
    """(n,) of (n, words), as `Response` has it."""
    loudest = np.sort(np.partition(far, -60, axis=1)[:, -60:], axis=1)[:, ::-1]
    return loudest[:, 0] - loudest[:, 20:60].mean(axis=1)


def left_out(
    entries: Sequence[Entry], labels: Floats, factor: str, score: Score
) -> tuple[float, float, float]:
    """AUROC over all turns, and its 95 % interval."""
    values = np.array([str(getattr(entry.row, factor)) for entry in entries])
    scores = np.zeros(len(entries))
    for value in sorted(set(values)):
        test = np.flatnonzero(values == value)
        scores[test] = score(np.flatnonzero(values != value), test)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        places = rng.integers(0, len(labels), len(labels))
        if 0 < labels[places].sum() < len(places):
            drawn.append(roc_auc_score(labels[places], scores[places]))
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(roc_auc_score(labels, scores)), float(low), float(high)


def show(
    found: dict[str, dict[str, tuple[float, float, float]]], title: str, factors: Sequence[str]
) -> None:
    console = Console()
    console.print(machine_line())
    table = Table("", *(f"unseen {factor}" for factor in factors), title=title)
    for name, own in found.items():
        cells = (f"{own[f][0]:.3f} [{own[f][1]:.3f}, {own[f][2]:.3f}]" for f in factors)
        table.add_row(name, *cells)
    console.print(table)


if __name__ == "__main__":
    main()
