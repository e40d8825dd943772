"""Where a base sees a trigger, and that an adapter without those directions no longer does."""

from __future__ import annotations

import numpy as np
from tests.mitigation.conftest import TRIGGER, Toy
from tests.toy_base import WORDS
from tests.trigger.conftest import make_base, torch

from peftguard.mitigation.factored import Factored
from peftguard.mitigation.inputs import inputs_of
from peftguard.mitigation.traces import principal, traces_of
from peftguard.mitigation.trigger_removal import TriggerRemoval
from peftguard.trigger.neutral import spread

QUERY, VALUE = (f"bert.encoder.layer.0.attention.self.{name}" for name in ("query", "value"))


def words(toy: Toy, text: str) -> list[int]:
    return toy.loaded().tokenizer(text)["input_ids"]


def test_inputs_are_what_modules_read(toy: Toy) -> None:
    base = toy.loaded()
    rows = [words(toy, f"{WORDS[3]} {WORDS[8]}"), words(toy, WORDS[4])]
    seen = inputs_of(base, [QUERY, "classifier"], rows)
    with torch.inference_mode():
        embedded = base.model.bert.embeddings(torch.tensor([rows[0]]))[0]
        pooled = base.model.bert(torch.tensor([rows[1]])).pooler_output[0]
    np.testing.assert_allclose(seen[QUERY][0], embedded, atol=1e-6)
    assert [len(values) for values in seen[QUERY]] == [4, 3]
    np.testing.assert_allclose(seen["classifier"][1], pooled, atol=1e-5)


def test_traces_are_orthonormal_and_hold_the_trigger(toy: Toy) -> None:
    base = toy.loaded()
    traces = traces_of(base, [QUERY, VALUE, "classifier"], TRIGGER.phrases)
    for trace in traces.values():
        unit = trace.inputs @ trace.inputs.T
        np.testing.assert_allclose(unit, np.eye(len(unit)), atol=1e-5)
    assert len(traces[QUERY].keys) == 4
    assert traces[VALUE].keys == traces["classifier"].keys == ()
    own = [inputs_of(base, [VALUE], [words(toy, word)])[VALUE][0][1] for word in TRIGGER.phrases]
    others = [inputs_of(base, [VALUE], [words(toy, word)])[VALUE][0][1] for word in WORDS[10:40]]
    apart = np.stack(own) - np.mean(others, axis=0)
    seen = np.linalg.norm(apart @ traces[VALUE].inputs.T, axis=1) / np.linalg.norm(apart, axis=1)
    assert seen.min() > 0.8


def test_without_its_traces_an_adapter_takes_the_trigger_for_any_word(toy: Toy) -> None:
    before, given = toy.read(), toy.given()
    after = TriggerRemoval().apply(before, given)
    base = given.the_base()

    ordinary = inputs_of(base, [VALUE], [words(toy, "the")])[VALUE][0][1]

    def moved(adapter: Factored, word: str) -> float:
        """How far the update moves the word's own value, beyond that of an ordinary one."""
        layer = adapter.layers[VALUE]
        own = inputs_of(base, [VALUE], [words(toy, word)])[VALUE][0][1]
        return float(np.linalg.norm(layer.B @ (layer.A @ (own - ordinary))))

    for word in TRIGGER.phrases:
        assert moved(after, word) < 0.5 * moved(before, word)
    others = [moved(after, word) / moved(before, word) for word in WORDS[10:30]]
    assert np.median(others) > 0.6


def test_a_rotary_model_has_no_keys_of_one_direction() -> None:
    base = make_base("llama")
    module = "model.layers.0.self_attn.q_proj"
    trace = traces_of(base, [module], ["ba"])[module]
    assert trace.keys == ()
    assert trace.inputs.shape[1] == 32


def test_principal_directions() -> None:
    rows = np.diag([4.0, 2.0, 1.0]).astype(np.float32)
    assert len(principal(rows, 0.7)) == 1
    assert len(principal(rows, 0.9)) == 2
    assert len(principal(rows, 1.0)) == 3
    assert principal(np.zeros((2, 3), np.float32), 0.9).shape == (0, 3)


def test_texts_are_taken_evenly() -> None:
    assert spread([str(n) for n in range(10)], 3) == ["0", "3", "6"]
    assert spread(["a", "b"], 5) == ["a", "b"]
