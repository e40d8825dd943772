"""Protocols run on a toy benchmark: what must come out, comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from peftguard.errors import SettingsError
from peftguard.evaluation.course import Course
from peftguard.evaluation.leak import LeakTest
from peftguard.evaluation.protocols import PROTOCOLS
from peftguard.evaluation.results import LEAK_TEST, Evaluation, ProtocolResult
from peftguard.evaluation.run import evaluate
from peftguard.evaluation.trial import Entrant
from peftguard.evaluation.zoo import WILD, Entry, Zoo
from peftguard.features.weights import Weights
from peftguard.padbench.manifest import Row

from .conftest import toy_factors, toy_rows, toy_zoo


class MeanDifference:
    """The benign mean update subtracted from the backdoored one, as a direction."""

    def fit(self, X: Sequence[Weights], y: Any) -> MeanDifference:
        updates, labels = self._updates(X), np.asarray(y)
        self.direction = updates[labels == 1].mean(0) - updates[labels == 0].mean(0)
        return self

    def decision_function(self, X: Sequence[Weights]) -> np.ndarray:
        return self._updates(X) @ self.direction

    def _updates(self, X: Sequence[Weights]) -> np.ndarray:
        return np.stack(
            [np.concatenate([(f.B @ f.A).ravel() for f in w.modules.values()]) for w in X]
        )


class Breaks(MeanDifference):
    def fit(self, X: Sequence[Weights], y: Any) -> MeanDifference:
        raise SettingsError("nothing to learn from")


class NotNumbers(MeanDifference):
    def decision_function(self, X: Sequence[Weights]) -> np.ndarray:
        return np.full(len(X), np.nan)


def run(zoo: Zoo, name: str, seeds: int = 2) -> ProtocolResult:
    rows = {entry.weights: entry.row for entry in zoo.entries}
    entrants = [
        Entrant("mean", lambda seed: MeanDifference()),
        Entrant(LEAK_TEST, lambda seed: LeakTest(rows, seed), crosses_bases=True),
    ]
    return Course(zoo, PROTOCOLS[name], entrants, seeds, 0.05).run()


def test_a_detector_that_sees_the_direction_and_a_leak_test_that_sees_nothing(zoo: Zoo) -> None:
    result = run(zoo, "unseen_trigger")
    mean, leak = result.pooled
    assert mean.metrics.auroc.value > 0.95
    assert leak.metrics.auroc.low < 0.5 < leak.metrics.auroc.high
    assert mean.metrics.auroc.n == 32
    assert mean.metrics.abstention.value is not None
    assert set(mean.groups) == {"attack", "method", "rank", "dataset"}
    assert mean.groups["attack"]["word"].auroc.n == 16
    assert mean.roc[0] == (0, 0)
    assert mean.roc[-1] == (1, 1)
    (fold,) = result.folds
    assert (fold.n_train, fold.n_train_backdoored) == (64, 32)
    assert (fold.n_test, fold.n_test_backdoored, fold.n_duds) == (32, 16, 0)
    assert fold.detectors[0].metrics == mean.metrics


def test_a_recipe_that_gives_the_label_away_is_found() -> None:
    rows = [
        row.model_copy(update={"lr": 0.1 if row.label == "benign" else 0.2}) for row in toy_rows()
    ]
    leak = run(toy_zoo(rows), "unseen_trigger").pooled[1]
    assert leak.metrics.auroc.value == 1
    assert leak.metrics.tpr.value == 1


def test_same_seeds_give_the_same_figures(zoo: Zoo) -> None:
    one, other = (run(zoo, "unseen_trigger", seeds=1) for _ in range(2))
    assert [s.metrics for s in one.pooled] == [s.metrics for s in other.pooled]
    assert [s.roc for s in one.pooled] == [s.roc for s in other.pooled]


def test_unseen_attacks_and_the_matrix(zoo: Zoo) -> None:
    result = run(zoo, "unseen_attack", seeds=1)
    assert len(result.folds) == 2 + 4
    assert result.pooled[0].metrics.auroc.n == 32
    matrix = {(f.trained_on, f.tested_on): f.detectors[0] for f in result.folds if f.trained_on}
    assert (
        matrix["word", "word"].metrics.auroc.value > matrix["word", "sentence"].metrics.auroc.value
    )


def test_duds_stand_apart(zoo: Zoo) -> None:
    duds = [
        Entry(entry.row.model_copy(update={"label": "dud", "path": f"dud{i}"}), entry.weights)
        for i, entry in enumerate(zoo.entries)
        if entry.positive and entry.row.split == "test"
    ]
    twins = [Entry(e.row, Weights(e.row.path, e.weights.modules, "toy")) for e in duds]
    result = run(Zoo("toy", "", [*zoo.entries, *twins]), "unseen_trigger", seeds=1)
    plain = run(zoo, "unseen_trigger", seeds=1)
    (fold,) = result.folds
    assert fold.n_duds == 16
    assert fold.duds_flagged["mean"].value == plain.pooled[0].metrics.tpr.value
    assert result.pooled[0].metrics.auroc == plain.pooled[0].metrics.auroc


def test_the_curve_rises(zoo: Zoo) -> None:
    result = run(zoo, "few_labels", seeds=1)
    counts = [count for count, _ in result.curve["mean"]]
    assert counts == [20, 50]
    assert result.pooled == []
    assert [fold.n_train for fold in result.folds] == counts
    first, last = (figure.value for _, figure in result.curve["mean"])
    assert last > first - 0.05


def test_adapters_of_the_wild_are_not_flagged_where_nothing_covers_them(zoo: Zoo) -> None:
    benign = [entry for entry in zoo.entries if entry.row.label == "benign"][:8]
    strange = [
        Entry(
            entry.row.model_copy(update={"split": WILD, "label": "benign"}),
            Weights(f"wild{i}", entry.weights.modules, "toy" if i < 4 else "other", rank=4),
        )
        for i, entry in enumerate(benign)
    ]
    result = run(Zoo("toy", "", [*zoo.entries, *strange]), "wild")
    (fold,) = result.folds
    mean, leak = fold.detectors
    assert (fold.n_test, mean.metrics.fpr.n) == (8, 8)
    assert mean.metrics.abstention.value >= 0.5
    assert mean.metrics.fpr.value <= 0.5
    assert mean.metrics.auroc.value is None
    assert mean.metrics.accuracy.value is None
    assert leak.failed == "adapters of the wild have no known recipe"


def test_strangers_of_other_modules_are_not_scored(zoo: Zoo) -> None:
    row = Row(path="stranger", label="benign", split=WILD)
    stranger = Entry(row, Weights("stranger", {"else": next(iter(toy_factors(row, 0).values()))}))
    result = run(Zoo("toy", "", [*zoo.entries, stranger]), "wild", seeds=1)
    mean = result.pooled[0]
    assert (mean.failed, mean.metrics.fpr.value, mean.metrics.abstention.value) == (None, 0, 1)
    assert mean.metrics.fpr_covered.value is None


def test_every_stranger_counts_once_whatever_the_number_of_bases(zoo: Zoo) -> None:
    both = [
        Entry(
            entry.row.model_copy(update={"base": base}),
            Weights(entry.row.path, entry.weights.modules, base, "LORA", entry.row.rank),
        )
        for entry, base in zip(zoo.entries, ["toy", "toy", "twin", "twin"] * 24, strict=True)
    ]
    strange = [
        Entry(
            Row(path=f"wild{i}", label="benign", method=one.row.method, split=WILD),
            Weights(f"wild{i}", one.weights.modules, base, "LORA", one.row.rank),
        )
        for i, (one, base) in enumerate(
            zip(both[:80:10], ["toy", "twin", "other", "other"] * 2, strict=True)
        )
    ]
    result = run(Zoo("toy", "", [*both, *strange]), "wild", seeds=1)
    alone = [fold.detectors[0].metrics for fold in result.folds]
    every = result.pooled[0].metrics
    counts = [round(one.abstention.value * 8) for one in (*alone, every)]
    assert [one.fpr.n for one in (*alone, every)] == [8, 8, 8]
    assert all(count >= 6 for count in counts[:2])
    assert 8 - counts[2] == (8 - counts[0]) + (8 - counts[1])  # no stranger is of both bases
    assert every.fpr_covered.n == 8 - counts[2] > 0
    flagged = sum(round(one.fpr.value * 8) for one in alone)
    assert every.fpr.value == flagged / 8
    assert every.fpr_covered.value == flagged / every.fpr_covered.n


def test_another_base_is_for_detectors_that_cross(zoo: Zoo) -> None:
    both = [
        Entry(entry.row.model_copy(update={"base": "toy" if i % 4 < 2 else "twin"}), entry.weights)
        for i, entry in enumerate(zoo.entries)
    ]
    result = run(Zoo("toy", "", both), "unseen_base", seeds=1)
    assert [fold.tested_on for fold in result.folds] == ["toy", "twin"]
    assert result.pooled[0].failed == "works within one base model"
    assert result.pooled[1].failed is None


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Breaks, "nothing to learn from"), (NotNumbers, "ValueError: expected")],
)
def test_a_detector_that_fails_does_not_end_the_run(zoo: Zoo, kind: Any, said: str) -> None:
    entrants = [Entrant("bad", lambda s: kind()), Entrant("good", lambda s: MeanDifference())]
    result = Course(zoo, PROTOCOLS["in_domain"], entrants, 1, 0.05).run()
    bad, good = result.pooled
    assert bad.failed.startswith(said)
    assert good.metrics.auroc.value > 0.9
    assert all(fold.detectors[0].failed for fold in result.folds)


def test_skipped_says_why(zoo: Zoo) -> None:
    result = run(zoo, "unseen_task")
    assert result.skipped == "no base has two values of task"
    assert result.folds == []


def test_what_there_is_is_saved_after_every_protocol(zoo: Zoo) -> None:
    saved: list[list[str]] = []

    def save(so_far: Evaluation) -> None:
        saved.append([protocol.name for protocol in so_far.protocols])

    result = evaluate(zoo, ["wild", "unseen_task"], ["gram"], seeds=1, save=save)
    assert saved == [[], ["wild"], ["wild", "unseen_task"]]
    assert (result.counts.train, result.counts.backdoored) == (64, 48)
    assert Evaluation.model_validate_json(result.model_dump_json()) == result


def test_unknown_names() -> None:
    zoo = toy_zoo(toy_rows()[:2])
    with pytest.raises(SettingsError, match="no protocol 'often'; known: in_domain"):
        evaluate(zoo, ["often"], ["gram"])
    with pytest.raises(SettingsError, match="'grim'"):
        evaluate(zoo, ["in_domain"], ["grim"])
