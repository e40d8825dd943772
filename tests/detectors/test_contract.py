"""What every estimator keeps to: scikit-learn's contract, and states that can be trusted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.base import clone
from sklearn.utils import get_tags
from tests.toy_base import write_bert

from peftguard.detectors.base import Estimator, State
from peftguard.detectors.registry import ESTIMATORS, estimator_named
from peftguard.errors import SettingsError
from peftguard.features.weights import Factors, Weights
from peftguard.trigger.report import TriggerScores

SHORT: dict[str, dict[str, Any]] = {
    "peftguard": {"conv": (2, 4, 4, 0), "epochs": 2},
    "sequence": {"epochs": 2},
}
"""Parameters with which fitting takes no time."""


def zoo(count: int = 16) -> tuple[list[Weights], np.ndarray]:
    rng, labels = np.random.default_rng(0), np.arange(count) % 2
    adapters = []
    for label in labels:
        modules = {}
        for module in ("layers.0.q_proj", "layers.0.v_proj"):
            B, A = rng.normal(size=(8, 3)), rng.normal(size=(3, 8))
            A[0] += 2 * label
            modules[module] = Factors(B.astype(np.float32), A.astype(np.float32))
        lone, word, form = rng.normal(size=3) + label
        searched = TriggerScores(lone=lone, word=word, form=form)
        adapters.append(Weights("a", modules, searched=searched))
    return adapters, labels


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base model whose words are as wide as the adapters."""
    return str(write_bert(tmp_path_factory.mktemp("base"), width=8))


@pytest.fixture(params=ESTIMATORS)
def estimator(request: pytest.FixtureRequest, base: str) -> Estimator:
    return short(request.param, base)


@pytest.fixture(scope="module", params=ESTIMATORS)
def fitted(request: pytest.FixtureRequest, base: str) -> Estimator:
    return short(request.param, base).fit(*zoo())


def short(kind: str, base: str) -> Estimator:
    """Of this kind, quick to fit."""
    made = estimator_named(kind, **SHORT.get(kind, {}))
    if made.extra is not None:
        pytest.importorskip(made.extra)
    return made.set_params(base=base) if kind == "response" else made


def test_clone_and_parameters(estimator: Estimator) -> None:
    params = estimator.get_params()
    assert params
    other = clone(estimator)
    assert type(other) is type(estimator)
    assert other.get_params() == params
    name = next(name for name in params if name != "memory")
    assert other.set_params(**{name: 0.125}) is other
    assert clone(other).get_params()[name] == 0.125
    assert estimator.get_params() == params
    with pytest.raises(ValueError, match="nonsense"):
        other.set_params(nonsense=1)


def test_clone_forgets_what_was_learnt(fitted: Estimator) -> None:
    assert any(name.endswith("_") for name in vars(fitted))
    assert not any(name.endswith("_") for name in vars(clone(fitted)))


def test_tags(estimator: Estimator) -> None:
    tags = get_tags(estimator)
    assert tags.estimator_type == "classifier"
    assert tags.target_tags.required == estimator.needs_labels
    assert not tags.classifier_tags.multi_class


def test_scores_and_predictions(fitted: Estimator) -> None:
    X, _ = zoo()
    scores = fitted.decision_function(X)
    assert scores.shape == (len(X),)
    assert scores.dtype == np.float64
    assert fitted.predict(X).tolist() == (scores > 0).astype(int).tolist()
    # Networks compute in float32, and where a row lies in memory may decide how its sums round.
    again = fitted.decision_function(X[::-1])
    np.testing.assert_allclose(again, scores[::-1], rtol=1e-5, atol=1e-6)
    assert fitted.decision_function([]).shape == (0,)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class(estimator: Estimator, label: int) -> None:
    X, _ = zoo()
    if estimator.needs_labels:
        with pytest.raises(SettingsError, match="one class"):
            estimator.fit(X, [label] * len(X))
    else:
        assert estimator.fit(X, [0] * len(X)).decision_function(X).shape == (len(X),)


@pytest.mark.parametrize("labels", [[0, 1], [[0], [1]] * 8, [0, 2] * 8])
def test_wrong_labels(estimator: Estimator, labels: list[Any]) -> None:
    with pytest.raises(SettingsError, match="expected 16 of 0 and 1"):
        estimator.fit(zoo()[0], labels)


def test_nothing_to_learn_from(estimator: Estimator) -> None:
    with pytest.raises(SettingsError, match=r"found|no "):
        estimator.fit([Weights("empty", {})] * 16, [0, 1] * 8)


def test_state_is_all_there_is(fitted: Estimator) -> None:
    X, _ = zoo()
    state = fitted.state()
    stored = State(state.tensors, json.loads(json.dumps(state.settings)))
    again = estimator_named(fitted.name).restore(stored)
    np.testing.assert_allclose(again.decision_function(X), fitted.decision_function(X), atol=1e-5)


def test_incomplete_state(fitted: Estimator) -> None:
    state = fitted.state()
    for name in state.tensors:
        rest = {key: array for key, array in state.tensors.items() if key != name}
        with pytest.raises(KeyError):
            estimator_named(fitted.name).restore(State(rest, state.settings))
    for name in state.settings:
        others = {key: value for key, value in state.settings.items() if key != name}
        with pytest.raises(KeyError):
            estimator_named(fitted.name).restore(State(state.tensors, others))


def test_inconsistent_state(fitted: Estimator) -> None:
    state = fitted.state()
    for name, array in state.tensors.items():
        for bad in (array[None], np.full(array.shape, np.nan), array[..., :0]):
            tensors = {**state.tensors, name: bad}
            with pytest.raises(ValueError, match=r"expected|finite"):
                estimator_named(fitted.name).restore(State(tensors, state.settings))


@pytest.mark.parametrize("bad", [None, 3, "text", [3], [[1, 2]], [["q", 2, None]]])
def test_settings_of_another_kind(fitted: Estimator, bad: Any) -> None:
    state = fitted.state()
    if state.settings:
        stored = State(state.tensors, dict.fromkeys(state.settings, bad))
        with pytest.raises(ValueError, match="expected"):
            estimator_named(fitted.name).restore(stored)


SCORE = """
import json, sys
import numpy as np
from safetensors.numpy import load_file
sys.modules.update(dict.fromkeys(["sklearn", "scipy", "torch"]))  # importing them fails
from peftguard.detectors.base import State
from peftguard.detectors.registry import estimator_named
from peftguard.features.weights import Factors, Weights
from peftguard.trigger.report import TriggerScores
searched = TriggerScores(lone=1, word=2, form=3)
kind, folder = sys.argv[1:]
adapter = load_file(f"{folder}/adapter.safetensors")
modules = {m: Factors(adapter[f"{m}.B"], adapter[f"{m}.A"]) for m in ("layers.0.q_proj",)}
state = State(load_file(f"{folder}/tensors.safetensors"), json.load(open(f"{folder}/state.json")))
x = Weights("a", modules, searched=searched)
print(estimator_named(kind).restore(state).decision_function([x])[0])
"""


def test_scoring_needs_numpy_alone(fitted: Estimator, tmp_path: Path) -> None:
    state = fitted.state()
    contiguous = {key: np.ascontiguousarray(array) for key, array in state.tensors.items()}
    save_file(contiguous, tmp_path / "tensors.safetensors")
    (tmp_path / "state.json").write_text(json.dumps(state.settings))
    module = "layers.0.q_proj"
    factors = zoo()[0][0].modules[module]
    save_file(
        {f"{module}.A": factors.A, f"{module}.B": factors.B}, tmp_path / "adapter.safetensors"
    )
    words = [sys.executable, "-c", SCORE, fitted.name, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    x = Weights("a", {module: factors}, searched=TriggerScores(lone=1, word=2, form=3))
    expected = fitted.decision_function([x])[0]
    assert float(done.stdout) == pytest.approx(expected, abs=1e-4)
