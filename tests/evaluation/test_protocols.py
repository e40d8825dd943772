"""What every protocol keeps: nothing shared between training and test, each adapter tested once."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftguard.evaluation.parting import LEAST_TEST, LEAST_TRAIN, Split, Unsupported
from peftguard.evaluation.protocols import PROTOCOLS
from peftguard.evaluation.zoo import Entry, Zoo
from peftguard.features.weights import Weights
from peftguard.padbench.manifest import Row

from .conftest import toy_rows, toy_zoo

LEFT_OUT = ["unseen_attack", "unseen_method", "unseen_rank", "unseen_dataset", "unseen_task"]


@st.composite
def zoos(draw: st.DrawFn) -> Zoo:
    """Any benchmark whose splits share neither data nor groups; triggers they may share."""
    has_splits = draw(st.booleans())
    two = st.sampled_from(["x", "y"])
    rows = []
    for number in range(draw(st.integers(30, 90))):
        split = draw(st.sampled_from(["train", "train", "test"])) if has_splits else None
        label = draw(st.sampled_from(["benign", "backdoored", "backdoored", "dud", "benign"]))
        rows.append(
            Row(
                path=str(number),
                label=label,
                split=split,
                split_group=draw(st.none() | two.map(lambda v, s=split: f"{s}:{v}")),
                base=draw(st.sampled_from(["m", "m", "m", "n"])),
                dataset=draw(two),
                task=draw(two),
                attack=draw(two if label != "benign" else st.none() | two),
                trigger=draw(st.none() | st.lists(st.sampled_from("abcdefgh"), max_size=2)),
                method=draw(two),
                rank=draw(st.sampled_from([4, 16])),
                data_hash=f"{split}{draw(st.integers(0, 60))}",
            )
        )
    return Zoo("any", "", [Entry(row, Weights(row.path, {})) for row in rows])


def splits_of(zoo: Zoo, name: str) -> list[Split]:
    try:
        return PROTOCOLS[name].splits(zoo)
    except Unsupported:
        return []


@settings(max_examples=15, deadline=None)
@given(zoos(), st.sampled_from(sorted(set(PROTOCOLS) - {"wild"})))
def test_nothing_is_shared(zoo: Zoo, name: str) -> None:
    within = name == "seen_trigger"
    for split in splits_of(zoo, name):
        tested = Counter(i for part in split.parts for i in part.test)
        assert set(tested.values()) == {1}
        for part in split.parts:
            train, test = ([zoo.entries[i] for i in side] for side in (part.train, part.test))
            assert not set(part.train) & set(part.test)
            assert not any(entry.dud for entry in train)
            for column in ("data_hash", *(() if within else ("split_group",))):
                known = {getattr(entry.row, column) for entry in train} - {None}
                assert not known & {getattr(entry.row, column) for entry in test}
            if name == "unseen_trigger":
                one, other = (
                    {trigger for entry in side for trigger in entry.triggers()}
                    for side in (train, test)
                )
                assert not one & other
            if zoo.has_splits:
                assert {entry.row.split for entry in train} == {"train"}
                assert {entry.row.split for entry in test} == {"train" if within else "test"}
            for side, least in ((train, LEAST_TRAIN), (test, LEAST_TEST)):
                labels = Counter(entry.row.label for entry in side)
                assert min(labels["benign"], labels["backdoored"]) >= least


@settings(max_examples=15, deadline=None)
@given(zoos(), st.sampled_from(LEFT_OUT))
def test_what_is_left_out_is_not_trained_on(zoo: Zoo, name: str) -> None:
    factor = name.removeprefix("unseen_")
    for split in splits_of(zoo, name):
        for part in split.parts:
            train, test = (
                {zoo.entries[i].value(factor) for i in side} - {None}
                for side in (part.train, part.test)
            )
            assert test == {split.tested_on}
            if split.trained_on is None:
                assert split.tested_on not in train
            else:
                assert train == {split.trained_on}
            assert len({zoo.entries[i].value("base") for i in (*part.train, *part.test)}) == 1


@pytest.mark.parametrize("with_splits", [True, False])
@pytest.mark.parametrize("name", ["in_domain", "unseen_attack", "unseen_method", "unseen_rank"])
def test_every_test_adapter_is_tested_once(name: str, with_splits: bool) -> None:
    zoo = toy_zoo(toy_rows(splits=with_splits))
    folds = [split for split in PROTOCOLS[name].splits(zoo) if split.pooled]
    tested = Counter(i for split in folds for part in split.parts for i in part.test)
    assert sorted(tested) == zoo.members("test" if with_splits else None)
    assert set(tested.values()) == {1}


def test_benign_twins_follow_their_cell(zoo: Zoo) -> None:
    for name in ("unseen_attack", "unseen_method", "unseen_rank"):
        for split in PROTOCOLS[name].splits(zoo):
            for part in split.parts:
                labels = Counter(zoo.entries[i].row.label for i in part.test)
                assert labels["benign"] == labels["backdoored"]


def test_the_matrix_is_whole(zoo: Zoo) -> None:
    splits = PROTOCOLS["unseen_attack"].splits(zoo)
    matrix = {(split.trained_on, split.tested_on) for split in splits if split.trained_on}
    both = {"word", "sentence"}
    assert matrix == {(one, other) for one in both for other in both}
    assert [split.tested_on for split in splits if split.pooled] == ["word", "sentence"]


def test_benign_adapters_of_no_attack_are_every_attacks_control() -> None:
    rows = [
        row.model_copy(update={"attack": None}) if row.label == "benign" else row
        for row in toy_rows()
    ]
    zoo = toy_zoo(rows)
    for split in PROTOCOLS["unseen_attack"].splits(zoo):
        for part in split.parts:
            benign = {i for i in part.test if zoo.entries[i].row.label == "benign"}
            assert benign == {i for i in zoo.members("test") if rows[i].label == "benign"}


def test_seen_triggers_are_seen(zoo: Zoo) -> None:
    for split in PROTOCOLS["seen_trigger"].splits(zoo):
        for part in split.parts:
            known = set().union(*(zoo.entries[i].triggers() for i in part.train))
            bad = [i for i in part.test if zoo.entries[i].positive]
            assert all(zoo.entries[i].triggers() & known for i in bad)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("unseen_trigger", {"trigger": None}, "the manifest names no triggers"),
        ("unseen_trigger", {"trigger": ["one"]}, "the trigger 'one' is in both splits"),
        ("unseen_attack", {"attack": "word"}, "no base has two values of attack"),
        ("unseen_task", {}, "no base has two values of task"),
        ("unseen_base", {}, "one base model"),
        ("wild", {}, "name a folder"),
    ],
)
def test_a_question_without_an_answer_says_why(
    name: str, change: dict[str, object], said: str
) -> None:
    zoo = toy_zoo([row.model_copy(update=change) for row in toy_rows()])
    with pytest.raises(Unsupported, match=said):
        PROTOCOLS[name].splits(zoo)


def test_few_labels_stops_where_adapters_run_out(zoo: Zoo) -> None:
    assert [split.take for split in PROTOCOLS["few_labels"].splits(zoo)] == [20, 50]
