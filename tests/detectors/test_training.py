"""From a benchmark to a detector that keeps its word on fresh adapters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binom
from tests.toys import BASE, toy_row, toy_weights, toy_zoo

from peftguard.detectors.trained import TrainedDetector
from peftguard.detectors.training import Options, Scheme, train
from peftguard.errors import SettingsError
from peftguard.evaluation.zoo import Entry, Zoo

SAME = "identical training data; pools of data and triggers are shared"


def flags(detector: TrainedDetector, labels: Sequence[str], fpr: float, seed: int) -> float:
    """Share of fresh adapters that a scan would flag."""
    rows = [toy_row(number, label) for number, label in enumerate(labels)]
    fresh = [toy_weights(row, seed + number) for number, row in enumerate(rows)]
    estimator, calibration, coverage = detector.learnt
    inside = np.array([coverage.uncovered(adapter) is None for adapter in fresh])
    n = len(fresh)
    scores = estimator.decision_function(fresh)
    p_values = calibration.p_values(scores, [BASE] * n, ["LORA"] * n)
    return float((inside & (p_values <= fpr)).mean())


@pytest.mark.parametrize("scheme", ["cross", "split"])
def test_fresh_adapters_are_flagged_as_promised(scheme: Scheme) -> None:
    detector = train(toy_zoo(150, 60), Options("gram", calibration=scheme))
    n, fpr = 300, 0.05
    assert flags(detector, ["benign"] * n, fpr, 40_000) * n <= binom.ppf(0.9999, n, fpr)
    assert flags(detector, ["backdoored"] * 60, fpr, 60_000) > 0.8


def test_the_card_tells_how_it_was_made() -> None:
    detector = train(toy_zoo(60, 30, n_duds=5), Options("gram", seed=3, fpr=0.2, decides=True))
    card = detector.training
    assert (card.zoo.n_benign, card.zoo.n_backdoored, card.zoo.n_duds) == (60, 30, 5)
    assert (card.name, card.estimator, card.seed, card.decides) == ("toy-gram", "gram", 3, True)
    assert (card.protocol.folds, card.protocol.groups) == (5, SAME)
    assert [at.fpr for at in card.metrics.at] == [0.01, 0.05, 0.2]
    assert card.metrics.covered_benign is not None
    covered = round(60 * card.metrics.covered_benign.value)
    assert [(s.base, s.method, s.n) for s in card.calibration] == [(BASE, None, covered)]
    assert card.metrics.auroc is not None
    assert card.metrics.auroc.low <= card.metrics.auroc.value <= card.metrics.auroc.high
    assert card.metrics.auroc.value > 0.95
    assert card.command == (
        "peftguard train toy --detector gram --seed 3 --calibration cross --fpr 0.2 --decides"
    )
    assert "memory" not in card.params
    assert (detector.card.n_calibration, detector.card.coverage) == (covered, card.coverage.line)


def test_a_rate_that_cannot_be_reached_flags_nothing() -> None:
    at = train(toy_zoo(), Options("gram")).training.metrics.at[0]
    assert at.fpr == 0.01
    assert at.true_positive_rate is not None
    assert (at.true_positive_rate.value, at.true_positive_rate.n) == (0.0, 30)


def test_split_calibration_keeps_a_third_out_of_training() -> None:
    card = train(toy_zoo(90, 45), Options("gram", calibration="split")).training
    assert card.calibration[0].n == 30
    assert card.metrics.at[0].false_positive_rate is None
    assert card.coverage.n_known + card.coverage.n_held_out == 90


def test_progress_counts_fits() -> None:
    seen: list[tuple[int, int, str]] = []
    train(toy_zoo(), Options("spectral"), lambda *step: seen.append(step))
    assert seen == [(done, 6, "spectral") for done in range(6)]


@pytest.mark.parametrize(
    ("zoo", "kind", "why"),
    [
        (toy_zoo(3, 3), "gram", "cannot be held out in turn|too few"),
        (toy_zoo(), "gramm", "did you mean 'gram'"),
    ],
)
def test_what_cannot_be_trained_is_refused(zoo: Zoo, kind: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        train(zoo, Options(kind))


def regrouped(n_groups: int) -> Zoo:
    """A benchmark of so many split groups, each of both labels."""
    zoo = toy_zoo()
    entries = [
        Entry(one.row.model_copy(update={"split_group": f"g{at % n_groups}"}), one.weights)
        for at, one in enumerate(zoo.entries)
    ]
    return Zoo(zoo.name, zoo.manifest_sha256, entries)


@pytest.mark.parametrize(
    ("n_groups", "groups", "scheme"),
    [
        (5, "split groups", "cross"),
        (8, "split groups", "cross"),
        (4, SAME, "cross"),
        (3, "split groups", "split"),
        (2, SAME, "split"),
    ],
)
def test_split_groups_stay_whole_where_there_is_one_for_every_part(
    n_groups: int, groups: str, scheme: Scheme
) -> None:
    detector = train(regrouped(n_groups), Options("gram", calibration=scheme))
    assert detector.training.protocol.groups == groups


def test_groups_that_hold_a_class_each_are_parted() -> None:
    zoo = toy_zoo()
    entries = [
        Entry(
            one.row.model_copy(
                update={"split_group": "bad" if one.positive else f"g{at % 6}"},
            ),
            one.weights,
        )
        for at, one in enumerate(zoo.entries)
    ]
    detector = train(Zoo("toy", "0" * 64, entries), Options("gram"))
    assert detector.training.protocol.groups == SAME


def test_twins_of_duds_do_not_train() -> None:
    zoo = toy_zoo(60, 20, n_duds=10)
    rows = [
        one.row.model_copy(
            update={
                "path": f"s_label{int(at >= 60)}_{at % 60}",
                "dataset": "news",
                "rank": 2,
            }
        )
        for at, one in enumerate(zoo.entries)
    ]
    named = [Entry(row, one.weights) for row, one in zip(rows, zoo.entries, strict=True)]
    card = train(Zoo("toy", "0" * 64, named), Options("gram")).training
    assert (card.zoo.n_benign, card.zoo.n_backdoored, card.zoo.n_duds) == (50, 20, 10)
    assert card.zoo.n_bereft == 10
    assert card.coverage.n_known + card.coverage.n_held_out == 70
