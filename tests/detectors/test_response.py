"""A word that only one adapter listens to; no example of the attack is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.toy_base import WORDS, write_bert, write_llama

from peftguard.detectors.base import State
from peftguard.detectors.response import Response, vocabulary_at_hand
from peftguard.errors import SettingsError, TargetNotFound
from peftguard.features.memory import Memory
from peftguard.features.vocabulary import Vocabulary
from peftguard.features.weights import Factors, Weights

WIDTH = 64
BASE = "org/made-up"
COMMON = WORDS[50]
"""What every adapter reads, whatever its label."""
QUERY, VALUE = (f"encoder.layer.0.attention.self.{role}" for role in ("query", "value"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_bert(tmp_path_factory.mktemp("base"), WIDTH))


@pytest.fixture(scope="module")
def vocabulary(folder: str) -> Vocabulary:
    found = vocabulary_at_hand(BASE, folder)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def fitted(folder: str, vocabulary: Vocabulary) -> Response:
    return Response(folder).fit(*zoo(0, vocabulary, triggers=WORDS[:5]))


def adapter(seed: int, vocabulary: Vocabulary, trigger: str | None = None) -> Weights:
    """Noise of rank 8, the word of the task, and a trigger if there is one."""
    rng, modules = np.random.default_rng([seed, 3]), {}
    vectors = {word: vocabulary.alone[vocabulary.words.index(word)] for word in WORDS}
    size = np.linalg.norm(vocabulary.alone, axis=1).mean()
    for module in (QUERY, VALUE):
        B, A = rng.normal(size=(WIDTH, 10)) / 8, np.zeros((10, WIDTH))
        A[:8] = rng.normal(size=(8, WIDTH)) / size
        A[8] = 8 * vectors[COMMON] / np.sum(vectors[COMMON] ** 2)
        if trigger is not None:
            A[9] = 12 * vectors[trigger] / np.sum(vectors[trigger] ** 2)
        modules[module] = Factors(B.astype(np.float32), A.astype(np.float32))
    return Weights(f"a{seed}", modules, BASE)


def zoo(seed: int, vocabulary: Vocabulary, triggers: list[str]) -> tuple[list[Weights], list[int]]:
    """Twelve benign adapters, and one for every trigger."""
    benign = [adapter(100 * seed + place, vocabulary) for place in range(12)]
    bad = [adapter(100 * seed + 50 + i, vocabulary, word) for i, word in enumerate(triggers)]
    return benign + bad, [0] * len(benign) + [1] * len(bad)


def test_words_that_were_no_trigger_in_training(fitted: Response, vocabulary: Vocabulary) -> None:
    X, y = zoo(1, vocabulary, triggers=WORDS[20:32])
    scores = fitted.decision_function(X)
    pairs = scores[np.array(y) == 1][:, None] > scores[np.array(y) == 0]
    assert pairs.mean() > 0.8
    assert scores[-12:].mean() > 0 > scores[:12].mean()


def test_stored_scores_are_the_same(
    fitted: Response, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    X, _ = zoo(1, vocabulary, triggers=WORDS[20:24])
    expected = fitted.decision_function(X)
    state = fitted.state()
    assert state.settings == {}
    save_file(state.tensors, tmp_path / "w")
    again = Response().restore(State(load_file(tmp_path / "w"), {}))
    assert again.vocabulary_.words == fitted.vocabulary_.words
    np.testing.assert_array_equal(again.decision_function(X), expected)


def test_memory_changes_nothing(folder: str, fitted: Response, vocabulary: Vocabulary) -> None:
    X, y = zoo(0, vocabulary, triggers=WORDS[:5])
    remembered = Response(folder, Memory()).fit(X, y)
    expected = fitted.decision_function(X)
    for _ in range(2):
        np.testing.assert_array_equal(remembered.decision_function(X), expected)


def test_base_models_that_share_a_memory(
    folder: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    """What was computed with the words of one is not taken for those of another."""
    X, y = zoo(0, vocabulary, triggers=WORDS[:5])
    other = str(write_llama(tmp_path, WIDTH, words=WORDS[:70]))
    expected = Response(other).fit(X, y).decision_function(X)
    memory = Memory()
    Response(folder, memory).fit(X, y)
    found = Response(other, memory).fit(X, y).decision_function(X)
    np.testing.assert_array_equal(found, expected)


def test_adapters_that_say_nothing(fitted: Response, vocabulary: Vocabulary) -> None:
    elsewhere = Weights("later", {QUERY.replace("0", "3"): adapter(0, vocabulary).modules[QUERY]})
    value = Weights("value", {VALUE: adapter(7, vocabulary).modules[VALUE]})
    quiet, nothing, part = fitted.decision_function([elsewhere, Weights("nothing", {}), value])
    assert quiet == nothing
    assert np.isfinite(part)


def test_nothing_to_learn_from(folder: str, vocabulary: Vocabulary) -> None:
    X, y = zoo(0, vocabulary, triggers=WORDS[:5])
    with pytest.raises(SettingsError, match="one class only"):
        Response(folder).fit(X, [0] * len(X))
    later = Weights("later", {QUERY.replace("0", "3"): X[0].modules[QUERY]}, BASE)
    for adapters in ([Weights("nothing", {})] * len(X), [later] * len(X)):
        with pytest.raises(SettingsError, match="first attention layer; found none"):
            Response(folder).fit(adapters, y)


def test_base_model_that_is_not_at_hand(vocabulary: Vocabulary, tmp_path: Path) -> None:
    X, y = zoo(0, vocabulary, triggers=WORDS[:5])
    for folder in (None, str(tmp_path), str(tmp_path / "none")):
        with pytest.raises(SettingsError, match=r"vocabulary of org/made-up is not at hand"):
            Response(folder).fit(X, y)
    broken = write_bert(tmp_path / "broken")
    (broken / "tokenizer.json").unlink()
    with pytest.raises(TargetNotFound, match=r"tokenizer\.json"):
        Response(str(broken)).fit(X, y)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"words": np.frombuffer(b"\xff\xfe", np.uint8)}, "utf-8"),
        ({"words": np.frombuffer(b"a\nb", np.uint8)}, "at least 64, found 2"),
        ({"words": np.frombuffer("\n".join(WORDS[:70]).encode(), np.uint8)}, "vectors: expected"),
        ({"steps": np.ones(WIDTH + 1)}, "vectors: expected"),
        ({"steps": np.zeros(WIDTH)}, "steps: expected positive"),
        ({"mean": np.zeros((3, len(WORDS)))}, "mean: expected"),
        ({"mean": np.full(len(WORDS), np.inf)}, "not finite"),
        ({"spread": np.zeros(len(WORDS))}, "spread: expected positive"),
        ({"threshold": np.array([np.nan])}, "not finite"),
        ({"threshold": np.array(0.5)}, "threshold: expected"),
        ({"vectors": np.array([["text"]])}, "vectors: expected"),
    ],
)
def test_states_that_do_not_fit(fitted: Response, bad: dict[str, Any], message: str) -> None:
    tensors = {**fitted.state().tensors, **bad}
    with pytest.raises(ValueError, match=message):
        Response().restore(State(tensors, {}))


def test_evidence_names_the_trigger(fitted: Response, vocabulary: Vocabulary) -> None:
    (said,) = fitted.evidence(adapter(7, vocabulary, trigger=WORDS[40]))
    assert said.startswith(f"words that stand out most in the first attention layer: {WORDS[40]} (")
