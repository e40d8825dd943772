"""What both kernel machines keep to: one score, whichever way it is computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.toys import BASE, toy_zoo

from peftguard.detectors.base import State
from peftguard.detectors.gram import Gram
from peftguard.detectors.kernel import KernelMachine
from peftguard.detectors.outputs import Outputs
from peftguard.errors import SettingsError
from peftguard.features.memory import Memory
from peftguard.features.weights import Factors, Weights

Zoo = tuple[list[Weights], np.ndarray]
Kind = type[Gram] | type[Outputs]

pytestmark = pytest.mark.parametrize("kind", [Gram, Outputs])


def zoo(seed: int, n_benign: int = 14, n_backdoored: int = 10) -> Zoo:
    entries = toy_zoo(n_benign, n_backdoored, seed=seed).entries
    labels = [entry.row.label == "backdoored" for entry in entries]
    return [entry.weights for entry in entries], np.array(labels, int)


def wide(seed: int, count: int = 24) -> Zoo:
    """More directions side by side than an update has; backdoors share one."""
    rng, labels = np.random.default_rng([seed, 1]), np.arange(count) % 2
    adapters = []
    for label in labels:
        B, A = rng.normal(size=(64, 4)), rng.normal(size=(4, 60))
        if label:
            B[3, 0], A[0, 3] = 20, 20
        adapters.append(of({"layers.0.q_proj": (B, A)}))
    return adapters, labels


def of(modules: dict[str, tuple[np.ndarray, np.ndarray]]) -> Weights:
    return Weights(
        "a",
        {m: Factors(B.astype(np.float32), A.astype(np.float32)) for m, (B, A) in modules.items()},
    )


def remembering(*sides: list[Weights]) -> Memory:
    memory = Memory()
    memory.expect([adapter for side in sides for adapter in side])
    return memory


def through_files(machine: KernelMachine, folder: Path) -> KernelMachine:
    """What was learnt, stored and read again."""
    state = machine.state()
    save_file({k: np.ascontiguousarray(v) for k, v in state.tensors.items()}, folder / "w")
    again = type(machine)()
    again.restore(State(load_file(folder / "w"), json.loads(json.dumps(state.settings))))
    return again


def test_from_products_or_from_weights(kind: Kind) -> None:
    (X, y), (fresh, _) = zoo(0), zoo(1)
    plain = kind().fit(X, y)
    dual = kind(memory=remembering(X, fresh)).fit(X, y)
    for adapters in (X, fresh):
        expected = plain.decision_function(adapters)
        np.testing.assert_allclose(dual.decision_function(adapters), expected, atol=2e-3)
    # Weights are made of the same machine, once a stranger comes.
    dual.decision_function([Weights("stranger", {})])
    np.testing.assert_allclose(
        dual.decision_function(fresh), plain.decision_function(fresh), atol=2e-3
    )


def test_from_products_or_from_weights_with_many_directions(kind: Kind) -> None:
    (X, y), (fresh, _) = wide(0), wide(1)
    exact = kind(memory=remembering(X, fresh)).fit(X, y).decision_function(fresh)
    stored = kind().fit(X, y).decision_function(fresh)
    assert np.abs(stored - exact).max() < 2e-3 * np.ptp(exact)


def test_memory_of_the_training_adapters_alone(kind: Kind) -> None:
    (X, y), (fresh, _) = zoo(0), zoo(1)
    remembered = kind(memory=remembering(X)).fit(X, y).decision_function(fresh)
    np.testing.assert_allclose(remembered, kind().fit(X, y).decision_function(fresh), atol=2e-3)


def test_stored_scores_are_the_same(kind: Kind, tmp_path: Path) -> None:
    (X, y), (fresh, _) = zoo(0), zoo(1)
    machine = kind().fit(X, y)
    expected = machine.decision_function(fresh)
    again = through_files(machine, tmp_path)
    np.testing.assert_array_equal(again.decision_function(fresh), expected)
    again = through_files(again, tmp_path)
    np.testing.assert_array_equal(again.decision_function(fresh), expected)


def test_finds_what_it_was_not_shown(kind: Kind) -> None:
    (X, y), (fresh, labels) = zoo(0, 20, 20), zoo(1, 20, 20)
    scores = kind().fit(X, y).decision_function(fresh)
    pairs = scores[labels == 1][:, None] > scores[labels == 0]
    assert pairs.mean() > 0.8


@pytest.mark.parametrize("with_memory", [True, False])
def test_modules_that_some_lack_and_modules_that_are_new(kind: Kind, with_memory: bool) -> None:
    X, y = zoo(0)
    first, second = X[3].modules
    X[3], X[4] = Weights("one", {first: X[3].modules[first]}), Weights("nothing", {})
    foreign = of({first: (np.ones((3, 1)), np.ones((1, 3))), "new": (np.eye(12), np.eye(12))})
    rank_0 = of({second: (np.zeros((12, 0)), np.zeros((0, 12)))})
    untrained = of({second: (np.zeros((12, 2)), np.ones((2, 12)))})
    strangers = [X[4], foreign, rank_0, untrained]
    memory = remembering(X, strangers) if with_memory else None
    machine = kind(memory=memory).fit(X, y)
    assert machine.decision_function(strangers).tolist() == [machine.intercept_] * 4
    assert np.isfinite(machine.decision_function(X)).all()


def test_one_module_alone_counts_in_full(kind: Kind) -> None:
    """The mean is over the modules that an adapter has: repeating one changes nothing."""
    X, y = zoo(0)
    first = next(iter(X[0].modules))
    alone = [Weights("a", {first: x.modules[first]}) for x in X]
    twice = [Weights("a", {first: x.modules[first], "twin": x.modules[first]}) for x in X]
    machines = (kind().fit(side, y).decision_function(side) for side in (alone, twice))
    np.testing.assert_allclose(next(machines), next(machines), atol=1e-3)


@pytest.mark.parametrize("size", [1e-9, 1e12])
def test_size_does_not_matter(kind: Kind, size: float) -> None:
    X, y = zoo(0)
    machine = kind().fit(X, y)
    scaled = [of({m: (f.B * size, f.A) for m, f in x.modules.items()}) for x in X]
    expected = machine.decision_function(X)
    np.testing.assert_allclose(machine.decision_function(scaled), expected, atol=1e-4)


def test_other_factors_score_the_same(kind: Kind) -> None:
    X, y = zoo(0)
    machine, rng = kind().fit(X, y), np.random.default_rng(5)
    turned = []
    for x in X:
        modules = {}
        for name, (B, A) in ((m, (f.B, f.A)) for m, f in x.modules.items()):
            mix = np.linalg.qr(rng.normal(size=(len(A),) * 2))[0] * np.geomspace(1, 5, len(A))
            modules[name] = B @ np.linalg.inv(mix), mix @ A
        turned.append(of(modules))
    expected = machine.decision_function(X)
    np.testing.assert_allclose(machine.decision_function(turned), expected, atol=1e-3)


def test_nothing_to_learn_from(kind: Kind) -> None:
    X, y = zoo(0)
    with pytest.raises(SettingsError, match="one class only"):
        kind().fit(X, [1] * len(X))
    untrained = of({"q": (np.zeros((4, 2)), np.ones((2, 4)))})
    for adapters in ([Weights("a", {}, BASE)] * len(X), [untrained] * len(X)):
        with pytest.raises(SettingsError, match="needs updates; found none"):
            kind().fit(adapters, y)


@pytest.mark.parametrize(
    "sites", [{}, [["q", 12]], [["q", 12, 12.0]], [[1, 12, 12]], [["q", 5, 5]]]
)
def test_places_that_do_not_fit(kind: Kind, sites: Any) -> None:
    state = kind().fit(*zoo(0)).state()
    with pytest.raises(ValueError, match="expected"):
        kind().restore(State(state.tensors, {"sites": sites}))
