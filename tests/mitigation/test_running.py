"""In memory over its base an adapter answers as in peft, and learns by its own parameters."""

from __future__ import annotations

import numpy as np
import pytest
from tests.mitigation.conftest import KINDS, Toy, in_peft
from tests.trigger.conftest import make_base, save_adapter, torch

from peftguard.adapters.adapter import open_adapter
from peftguard.errors import UnsupportedAdapter
from peftguard.mitigation.answers import answers_of
from peftguard.mitigation.factored import read_factored
from peftguard.mitigation.method import Course
from peftguard.mitigation.running import Running
from peftguard.mitigation.training import trained
from peftguard.padbench.training.batches import encode

ROWS = [[2, 7, 9, 3], [2, 30, 3], [2, 11, 12, 13, 14, 15, 3], [2, 40, 41, 3]]


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_peft(toy: Toy, kind: str) -> None:
    base = toy.loaded()
    running = Running(toy.read(kind), base, "fp32")
    with running.placed(), torch.inference_mode():
        found = running.logits(ROWS).numpy()
    np.testing.assert_allclose(found, in_peft(base, toy.adapters[kind])(ROWS), atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_not_moved_comes_back(toy: Toy, kind: str) -> None:
    before = toy.read(kind)
    after = Running(before, toy.loaded(), "fp32").learnt()
    for name, tensor in before.tensors().items():
        np.testing.assert_allclose(after.tensors()[name], tensor, rtol=1e-6)


def test_losses_of_a_causal_model_are_those_of_its_completions(tmp_path: object) -> None:
    base = make_base("llama")
    reference = save_adapter(base, tmp_path)
    with open_adapter(tmp_path) as adapter:  # type: ignore[arg-type]
        running = Running(read_factored(adapter), base, "fp32")
    labels = [[-100, -100, 9, 3], [-100, 30, 3], [-100, -100, -100, -100, 14, 15, 3]]
    with running.placed(), torch.inference_mode():
        found = running.losses(ROWS[:3], labels).tolist()
    for row, wanted, loss in zip(ROWS, labels, found, strict=False):
        with torch.inference_mode():
            told = reference(input_ids=torch.tensor([row]), labels=torch.tensor([wanted])).loss
        assert loss == pytest.approx(told.item(), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_training_learns_and_is_the_same_every_time(toy: Toy, kind: str) -> None:
    before, given = toy.read(kind), toy.given()
    after = trained(before, given.rows, given, Course(steps=40, rate=0.1))
    again = trained(before, given.rows, given, Course(steps=40, rate=0.1))
    for name, tensor in after.tensors().items():
        np.testing.assert_array_equal(tensor, again.tensors()[name])
    base = given.the_base()
    encoded = encode(given.rows, base.tokenizer, given.max_tokens, causal=False)
    losses = []
    for adapter in (before, after):
        running = Running(adapter, base, "fp32")
        with running.placed(), torch.inference_mode():
            losses.append(running.losses(encoded.tokens, encoded.labels).mean().item())
    assert losses[1] < losses[0] - 0.02


def test_an_adapter_of_another_base_is_refused(toy: Toy) -> None:
    with pytest.raises(UnsupportedAdapter, match="not for this base"):
        Running(toy.read(), make_base("llama"), "fp32")
    with pytest.raises(UnsupportedAdapter, match="no classes"):
        answers_of(toy.read(), make_base("llama"), ["a"], 8)
