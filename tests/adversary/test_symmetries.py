"""Exact symmetries move no update, no score of any detector, and no verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from tests.adversary.conftest import EXACT, STRENGTHS, symmetries
from tests.toy_base import write_bert
from tests.toys import WIDTH

from peftguard.adapters.adapter import only_source, open_adapter
from peftguard.adversary.arithmetic import change
from peftguard.adversary.evasion import Evasion, Means
from peftguard.adversary.writing import read_original, write_changed
from peftguard.detectors.base import Estimator
from peftguard.detectors.registry import ESTIMATORS, estimator_named
from peftguard.detectors.trained import TrainedDetector
from peftguard.evaluation.zoo import Zoo
from peftguard.features.weights import Weights, weights_of
from peftguard.limits import Limits
from peftguard.results import TriggerScores, Verdict
from peftguard.settings import ScanSettings
from peftguard.verdict.judge import judge

SHORT: dict[str, dict[str, Any]] = {
    "peftguard": {"conv": (2, 4, 4, 0), "epochs": 2},
    "sequence": {"epochs": 2},
}
"""Parameters with which fitting takes no time."""
SEARCHED = TriggerScores(lone=1.0, word=2.0, form=3.0)
Symmetry = tuple[Evasion, float, int]
several = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def disguised(folder: Path, symmetry: Symmetry, out: Path) -> Path:
    """The adapter written under a symmetry."""
    evasion, strength, seed = symmetry
    original = read_original(folder)
    (part,) = evasion.apply(original.factored, strength, Means(np.random.default_rng(seed)))
    assert change(original.factored, (part,)) < 1e-5
    return write_changed(part, original, out)


def weights(folder: Path) -> Weights:
    with open_adapter(folder) as adapter:
        return replace(weights_of(adapter), searched=SEARCHED)


@pytest.fixture(scope="module", params=ESTIMATORS)
def fitted(
    request: pytest.FixtureRequest, zoo: Zoo, tmp_path_factory: pytest.TempPathFactory
) -> Estimator:
    """Every kind of detector that there is."""
    made = estimator_named(request.param, **SHORT.get(request.param, {}))
    if made.extra is not None:
        pytest.importorskip(made.extra)
    if request.param == "response":
        made.set_params(base=str(write_bert(tmp_path_factory.mktemp("base"), width=WIDTH)))
    judged = [entry for entry in zoo.entries if not entry.dud]
    searched = [
        TriggerScores(lone=number % 3, word=number % 5, form=number % 7)
        for number in range(len(judged))
    ]
    X = [replace(one.weights, searched=own) for one, own in zip(judged, searched, strict=True)]
    return made.fit(X, [int(entry.positive) for entry in judged])


def test_every_symmetry_is_tried() -> None:
    assert {evasion.name for evasion in EXACT} == STRENGTHS.keys()


@several
@given(symmetry=symmetries())
def test_no_score_moves(fitted: Estimator, toy: Path, tmp_path: Path, symmetry: Symmetry) -> None:
    for name in ("a0001", "a0070"):
        before, after = (
            weights(toy / name),
            weights(disguised(toy / name, symmetry, tmp_path / "x")),
        )
        old, new = fitted.decision_function([before, after])
        assert new == pytest.approx(old, rel=2e-3, abs=2e-3)


def verdict_on(folder: Path, detector: TrainedDetector) -> Verdict:
    source = only_source(str(folder), Limits())
    return judge(source, ScanSettings(fpr=0.05, cache=False), [detector]).verdict


@pytest.mark.parametrize("kind", ["gram", "outputs", "linear", "spectral", "anomaly", "ensemble"])
@several
@given(symmetry=symmetries())
def test_no_verdict_moves(
    kind: str,
    detectors: dict[str, TrainedDetector],
    toy: Path,
    tmp_path: Path,
    symmetry: Symmetry,
) -> None:
    for name in ("a0004", "a0060", "a0077"):
        before = verdict_on(toy / name, detectors[kind])
        after = verdict_on(disguised(toy / name, symmetry, tmp_path / "x"), detectors[kind])
        assert after.label == before.label
        assert after.p_value == before.p_value
        assert after.score == pytest.approx(before.score, rel=1e-4, abs=1e-4)


def test_both_kinds_of_verdict_are_tried(detectors: dict[str, TrainedDetector], toy: Path) -> None:
    labels = [verdict_on(toy / name, detectors["gram"]).label for name in ("a0004", "a0060")]
    assert labels[0] != "suspicious"
    assert labels[1] == "suspicious"
