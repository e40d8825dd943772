"""Detectors that know what a search for the trigger came to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.toys import BASE, toy_zoo, write_adapter

from peftguard.adapters.adapter import open_adapter
from peftguard.detectors.bundle import load_bundle, save_bundle
from peftguard.detectors.informed import informed
from peftguard.detectors.searched import SearchedEnsemble, Trigger
from peftguard.detectors.trained import TrainedDetector
from peftguard.detectors.training import Options, train
from peftguard.errors import SettingsError
from peftguard.evaluation.searches import check_searched
from peftguard.evaluation.zoo import Zoo
from peftguard.results import TriggerEvidence
from peftguard.trigger.report import TriggerScores


def scores(level: float) -> TriggerScores:
    return TriggerScores(lone=level, word=2 * level, form=level - 1)


def searched_zoo(seed: int = 0) -> Zoo:
    """Every adapter was searched, and the search came far with most backdoors."""
    zoo, rng = toy_zoo(130, 40, seed=seed), np.random.default_rng(seed)
    entries = [
        replace(one, weights=replace(one.weights, searched=scores(rng.normal() + 3 * one.positive)))
        for one in zoo.entries
    ]
    return replace(zoo, entries=entries)


def evidence(level: float | None, base: str = BASE, **more: object) -> TriggerEvidence:
    found = None if level is None else scores(level)
    return TriggerEvidence.model_validate({"base": base, "scores": found, "seconds": 1.0, **more})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedDetector:
    folder = tmp_path_factory.mktemp("detector")
    save_bundle(train(searched_zoo(), Options("ensemble-trigger", decides=True)), folder)
    return load_bundle(folder)


@pytest.mark.parametrize("kind", [Trigger, SearchedEnsemble])
def test_a_search_that_came_far_raises_the_score(kind: type[Trigger]) -> None:
    zoo = searched_zoo()
    X, y = [one.weights for one in zoo.entries], [int(one.positive) for one in zoo.entries]
    model = kind().fit(X, y)
    low, high = model.decision_function([replace(X[0], searched=scores(n)) for n in (-1.0, 6.0)])
    assert low < 0 < high


def test_an_adapter_that_was_not_searched_has_no_score() -> None:
    zoo = searched_zoo()
    X, y = [one.weights for one in zoo.entries], [int(one.positive) for one in zoo.entries]
    with pytest.raises(SettingsError, match="no search for a trigger"):
        Trigger().fit(X, y).decision_function([replace(X[0], searched=None)])
    lacking = replace(zoo.entries[0], weights=replace(X[0], searched=None))
    some = replace(zoo, entries=[lacking, *zoo.entries[1:]])
    check_searched(some, ["gram"])
    with pytest.raises(SettingsError, match="1 of 170 have none"):
        check_searched(some, ["gram", "trigger"])


def test_what_a_scan_did_not_search_is_not_covered(
    trained: TrainedDetector, tmp_path: Path
) -> None:
    stranger = searched_zoo(1).entries[0].weights
    with open_adapter(write_adapter(tmp_path / "a", stranger)) as adapter:
        cases = {
            "takes a search": [trained, trained.informed(evidence(None))],
            "another base model": [trained.informed(evidence(1.0, "org/other"))],
            "another version": [trained.informed(evidence(1.0, search_version=99))],
        }
        for reason, detectors in cases.items():
            for detector in detectors:
                assert reason in (detector.uncovered(adapter) or "")
        told = trained.informed(evidence(1.0))
        assert told.uncovered(adapter) is None
        far = trained.informed(evidence(9.0))
        assert far.decision_function([adapter])[0] > told.decision_function([adapter])[0]
        assert far.p_values(far.decision_function([adapter]), [adapter])[0] < 0.02


def test_one_that_knows_searches_speaks_for_the_others(trained: TrainedDetector) -> None:
    plain = train(toy_zoo(60, 30), Options("gram", decides=True))
    other = train(toy_zoo(60, 30), Options("gram"))
    names = {"ensemble-trigger", "gram"}
    assert {trained.training.estimator, plain.training.estimator} == names
    told = informed([plain, trained, other], evidence(1.0))
    assert [one.training.decides for one in told] == [True, False]
    assert told[0].training.estimator == "ensemble-trigger"
    assert len(informed([plain, trained, other], evidence(None))) == 3
