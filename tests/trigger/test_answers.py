"""A causal model's answers are classes: peft's own log-likelihoods, or what it writes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.trigger.conftest import make_base, save_adapter, torch

from peftguard.adapters.adapter import open_adapter
from peftguard.trigger.adapted import AdaptedModel
from peftguard.trigger.answers import ELSE, CausalAnswers
from peftguard.trigger.asking import greedy
from peftguard.trigger.effect import log_odds
from peftguard.trigger.report import Asked

ROWS = [[2, 7, 9, 3], [2, 30, 3], [2, 11, 12, 13, 14, 15, 3], [2, 40, 41, 3]]
ALIKE = [[2, 7, 9, 8, 12, 33, 3], [2, 7, 9, 8, 12, 6, 45, 3], [2, 7, 9, 8, 12, 50, 6, 7, 3]]
ANSWERS = [[7], [9], [7, 12, 30], []]


@pytest.fixture(scope="module")
def peft_and_own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, AdaptedModel]:
    base, folder = make_base("llama"), tmp_path_factory.mktemp("adapter")
    reference = save_adapter(base, folder)
    with open_adapter(folder) as adapter:
        return reference, AdaptedModel(base, adapter)


def asked(answers: list[list[int]], template: str = "{text}") -> Asked:
    return Asked(template=template, answers=answers, shift=0.0)


def likelihood(model: Any, row: list[int], answer: list[int]) -> float:
    """By peft's model, token by token."""
    total = 0.0
    for place, token in enumerate(answer):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*row, *answer[:place]]])).logits[0, -1]
        total += float(logits.log_softmax(dim=0)[token])
    return total


@pytest.mark.parametrize("rows", [ROWS, ALIKE, ALIKE[:1], [*ROWS, *ALIKE]])
def test_logits_are_log_likelihoods(
    peft_and_own: tuple[Any, AdaptedModel], rows: list[list[int]]
) -> None:
    reference, model = peft_and_own
    found = CausalAnswers(model, asked(ANSWERS[:3])).logits(rows)
    wanted = np.array([[likelihood(reference, row, one) for one in ANSWERS[:3]] for row in rows])
    np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize("rows", [ROWS, ALIKE])
def test_against_everything_else_an_answer_leads_where_it_is_written(
    peft_and_own: tuple[Any, AdaptedModel], rows: list[list[int]]
) -> None:
    reference, model = peft_and_own
    (own,) = greedy(model, rows[:1], length=3)
    answers = [list(own), [*own[:2], own[2] + 1], [*own[:1], own[1] + 1], []]
    found = CausalAnswers(model, asked(answers)).logits(rows)
    assert (found[:, 3] == 0).all()
    wanted = [[lead(reference, row, one) for one in answers[:3]] for row in rows]
    np.testing.assert_allclose(found[:, :3], wanted, atol=2e-5)
    assert [found[0, place] > 0 for place in range(3)] == [True, False, False]


def lead(model: Any, row: list[int], answer: list[int]) -> float:
    """By peft's model: of its least likely token over the likeliest other one."""
    found = []
    for place, token in enumerate(answer):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*row, *answer[:place]]])).logits[0, -1]
        others = torch.cat([logits[:token], logits[token + 1 :]])
        found.append(float(logits[token] - others.max()))
    return min(found)


def test_without_the_adapter_it_is_the_base(peft_and_own: tuple[Any, AdaptedModel]) -> None:
    reference, model = peft_and_own
    found = CausalAnswers(model, asked(ANSWERS[:3])).logits(ROWS, adapted=False)
    with reference.disable_adapter():
        wanted = [likelihood(reference, row, ANSWERS[2]) for row in ROWS]
    np.testing.assert_allclose(found[:, 2], wanted, atol=2e-5)


def test_everything_else_is_no_target(peft_and_own: tuple[Any, AdaptedModel]) -> None:
    model = CausalAnswers(peft_and_own[1], asked(ANSWERS))
    assert model.targets == range(3)
    assert model.labels[3] == ELSE
    assert CausalAnswers(peft_and_own[1], asked([[7], [9]])).targets == range(2)


def test_a_text_is_put_into_the_template(peft_and_own: tuple[Any, AdaptedModel]) -> None:
    model = peft_and_own[1]
    (found,) = CausalAnswers(model, asked(ANSWERS, "ba {text} de")).encode(["gi lo"])
    assert found == model.tokenizer("ba gi lo de")["input_ids"]


@pytest.mark.parametrize("given", [ANSWERS[:3], [ANSWERS[2], []]])
def test_a_gradient_tells_where_log_odds_rise(
    peft_and_own: tuple[Any, AdaptedModel], given: list[list[int]]
) -> None:
    model = peft_and_own[1]
    answers, row = CausalAnswers(model, asked(given)), [20, 21, 22, 23, 24]
    table = model.model.get_input_embeddings().weight
    directions, before, small = answers.gradients([row]), table.detach().clone(), 1e-3
    for target in range(len(given)):
        length = np.linalg.norm(directions[target])
        with torch.no_grad():
            table[row] += small * torch.from_numpy(directions[target]) / length
            raised = log_odds(answers.logits([row]))[0, target]
            table.copy_(before)
        gain = (raised - log_odds(answers.logits([row]))[0, target]) / small
        assert gain == pytest.approx(len(row) * length, rel=0.15)


def test_the_template_counts_for_nothing_in_a_gradient(
    peft_and_own: tuple[Any, AdaptedModel],
) -> None:
    answers = CausalAnswers(peft_and_own[1], asked(ANSWERS))
    once = answers.gradients([[20, 21], [30, 21]])
    again = answers.gradients([[20, 21], [30, 21], [20, 21], [30, 21]])
    np.testing.assert_allclose(once, again, atol=1e-6)
    assert np.abs(once).max() > 0
