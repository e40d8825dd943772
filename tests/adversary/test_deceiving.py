"""Evasions that ask a detector: they lower its score, within what they are allowed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from peftguard.adversary.evasion import Means
from peftguard.adversary.registry import evasion_named
from peftguard.adversary.target import Target, check_target, judged
from peftguard.adversary.writing import Original, read_original, write_changed
from peftguard.detectors.trained import TrainedDetector
from peftguard.errors import SettingsError
from peftguard.mitigation.factored import Factored


@pytest.fixture(scope="module")
def original(toy: Path) -> Original:
    return read_original(toy / "a0070")


def attacked(
    name: str, strength: float, original: Original, detector: TrainedDetector
) -> tuple[Factored, Target]:
    target = Target(detector, original)
    means = Means(np.random.default_rng(0), target=target)
    (part,) = evasion_named(name).apply(original.factored, strength, means)
    return part, target


def moves(part: Factored, original: Original) -> list[tuple[np.ndarray, np.ndarray]]:
    """What each factor was, and what was added to it."""
    return [
        (before, after - before)
        for module, layer in original.factored.layers.items()
        for before, after in (
            (layer.B, part.layers[module].B),
            (layer.A, part.layers[module].A),
        )
    ]


@pytest.mark.parametrize("kind", ["gram", "outputs", "linear", "ensemble"])
@pytest.mark.parametrize("name", ["fgsm", "i-fgsm", "pgd-inf", "pgd-2", "search"])
def test_the_score_falls(
    name: str, kind: str, original: Original, detectors: dict[str, TrainedDetector]
) -> None:
    part, target = attacked(name, 0.1, original, detectors[kind])
    assert target.score(part) < target.score(original.factored) - 1e-3


@pytest.mark.parametrize("name", ["fgsm", "i-fgsm", "pgd-inf"])
def test_no_number_leaves_its_ball(
    name: str, original: Original, detectors: dict[str, TrainedDetector]
) -> None:
    part, _ = attacked(name, 0.1, original, detectors["gram"])
    for before, move in moves(part, original):
        assert np.abs(move).max() <= 0.1 * np.sqrt(np.mean(before**2)) * (1 + 1e-4)


@pytest.mark.parametrize("name", ["pgd-2", "search"])
def test_the_whole_change_stays_in_its_ball(
    name: str, original: Original, detectors: dict[str, TrainedDetector]
) -> None:
    part, _ = attacked(name, 0.1, original, detectors["gram"])
    total = sum(float((before**2).sum()) for before, _ in moves(part, original))
    moved = sum(float((move**2).sum()) for _, move in moves(part, original))
    assert np.sqrt(moved / total) <= 0.1 * (1 + 1e-4)


def test_a_search_needs_no_gradient(
    original: Original, detectors: dict[str, TrainedDetector]
) -> None:
    part, target = attacked("search", 0.3, original, detectors["spectral"])
    assert target.score(part) < target.score(original.factored)


def test_carlini_and_wagner_get_to_the_benign_median(
    original: Original, detectors: dict[str, TrainedDetector]
) -> None:
    part, target = attacked("cw", 0.0, original, detectors["outputs"])
    middle, _ = target.benign
    assert target.score(original.factored) > middle
    assert target.score(part) <= middle + 1e-3
    assert part.layers.keys() == original.factored.layers.keys()


def test_what_is_written_has_the_score_that_was_aimed_at(
    original: Original, detectors: dict[str, TrainedDetector], tmp_path: Path
) -> None:
    part, target = attacked("pgd-2", 0.3, original, detectors["ensemble"])
    found = judged(detectors["ensemble"], write_changed(part, original, tmp_path / "x"))
    assert found.score == pytest.approx(target.score(part), abs=1e-5)
    assert 0 < found.p_value <= 1


def test_no_detector(original: Original) -> None:
    with pytest.raises(SettingsError, match="--detector"):
        evasion_named("fgsm").apply(original.factored, 0.1, Means(np.random.default_rng(0)))


def test_detectors_that_cannot_be_attacked(detectors: dict[str, TrainedDetector]) -> None:
    with pytest.raises(SettingsError, match="made by `peftguard train`"):
        check_target(object())
    one = detectors["gram"]
    card = one.training.model_copy(update={"search_version": 1})
    with pytest.raises(SettingsError, match="trigger search"):
        check_target(replace(one, training=card))
