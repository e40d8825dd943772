"""Benign adapters whose twins are duds go with them: else a recipe would tell the labels."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from peftguard.evaluation.course import Course
from peftguard.evaluation.leak import LeakTest
from peftguard.evaluation.protocols import PROTOCOLS
from peftguard.evaluation.results import LEAK_TEST, Fold
from peftguard.evaluation.run import evaluate
from peftguard.evaluation.trial import Entrant
from peftguard.evaluation.twins import twins_of
from peftguard.evaluation.zoo import Zoo
from peftguard.padbench.manifest import Row
from peftguard.padbench.plan import load_plan

from .conftest import toy_rows, toy_zoo


def numbered(path: str, label: Any = "benign", **more: Any) -> Row:
    return Row(path=path, label=label, **more)


def with_duds(*, named: bool) -> Zoo:
    """No backdoor of rank 8 fires; paths name the cell and the number, or nothing."""
    rows = []
    for number, row in enumerate(toy_rows()):
        cell, turn, label = f"{row.attack}_{row.method}_{row.dataset}", number // 2 % 3, number % 2
        path = f"{cell}_rank{row.rank}/x_label{label}_{turn}/best_model" if named else row.path
        dud = row.label == "backdoored" and row.rank == 8
        own: dict[str, Any] = {"path": path, "lr": 1e-3, "steps": 100}
        own |= {"label": "dud"} if dud else {}
        rows.append(row.model_copy(update=own))
    return toy_zoo(rows)


def leak(zoo: Zoo) -> Fold:
    rows = {entry.weights: entry.row for entry in zoo.entries}
    entrant = Entrant(LEAK_TEST, lambda seed: LeakTest(rows, seed))
    (fold,) = Course(zoo, PROTOCOLS["unseen_trigger"], [entrant], 1, 0.05).run().folds
    return fold


def test_the_recipe_tells_labels_only_where_twins_of_duds_stay() -> None:
    even, tipped = leak(with_duds(named=True)), leak(with_duds(named=False))
    auroc = even.detectors[0].metrics.auroc
    assert auroc.low < 0.5 < auroc.high
    assert tipped.detectors[0].metrics.auroc.low > 0.5
    assert (even.n_train, even.n_train_backdoored) == (32, 16)
    assert (even.n_test, even.n_test_backdoored) == (16, 8)
    assert (even.n_duds, even.n_bereft, tipped.n_bereft) == (8, 8, 0)


@pytest.mark.parametrize("name", sorted(set(PROTOCOLS) - {"wild", "unseen_task", "unseen_base"}))
def test_no_protocol_keeps_a_twin_of_a_dud(name: str) -> None:
    zoo = with_duds(named=True)
    gone = {place for place in zoo.members() if zoo.bereft(place)}
    assert len(gone) == 24
    if name == "unseen_rank":  # one of two ranks has no backdoors
        return
    for split in PROTOCOLS[name].splits(zoo):
        for part in split.parts:
            assert not gone & {*part.train, *part.test}
            assert set(part.bereft) <= gone


def test_the_report_counts_them() -> None:
    found = evaluate(with_duds(named=True), ["unseen_task"], ["gram"], seeds=1)
    assert (found.counts.benign, found.counts.duds, found.counts.bereft) == (48, 24, 24)
    assert any("benign twins, 24 here" in note for note in found.notes)
    assert any("1/8" in note for note in found.notes)


def test_twins_are_never_parted() -> None:
    zoo = with_duds(named=True)
    groups = zoo.groups(split_groups=False)
    assert len(zoo.twins) == 96
    assert all(groups[one] == groups[other] for one, other in zoo.twins.items())
    assert len(set(groups)) == 48


def test_a_plan_names_its_twins() -> None:
    recipes = load_plan("smoke").recipes()
    rows = [
        Row(
            path=one.folder,
            label="backdoored" if one.poisoned else "benign",
            **one.model_dump(include={"split", "base", "dataset", "attack", "rank"}),
            method=str(one.method),
        )
        for one in recipes
    ]
    twins = twins_of(rows)
    assert len(twins) == len(rows)
    for one, other in twins.items():
        assert recipes[one].subset == recipes[other].subset
        assert recipes[one].poisoned != recipes[other].poisoned
        assert twins[other] == one


@pytest.mark.parametrize(
    "rows",
    [
        [numbered("a"), numbered("b", "dud")],
        [numbered("s_label0_1"), numbered("s_label1_2", "dud")],
        [numbered("s_label0_1"), numbered("t_label1_1", "dud")],
        [numbered("s_label0_1", rank=4), numbered("s_label1_1", "dud", rank=8)],
        [numbered("s_label0_1", split="train"), numbered("s_label1_1", "dud", split="test")],
        [numbered("s_label0_1", "backdoored"), numbered("s_label1_1", "dud")],
    ],
)
def test_what_is_no_twin(rows: list[Row]) -> None:
    assert twins_of(rows) == {}


def test_either_order_makes_twins() -> None:
    for labels in product(["benign", "dud"], repeat=2):
        rows = [numbered(f"s/s_label{i}_07/best_model", label) for i, label in enumerate(labels)]
        assert twins_of(rows) == ({} if labels[0] == labels[1] else {0: 1, 1: 0})
