"""Adapters in upper layers alone: what lies below is computed once a row, and nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from peftguard.errors import SettingsError
from peftguard.padbench.recipe import Method

from .conftest import members, recipe, rows

torch = pytest.importorskip("torch")

from peftguard.padbench.training import fleet as fleets  # noqa: E402
from peftguard.padbench.training.base import LoadedBase  # noqa: E402
from peftguard.padbench.training.below import Below  # noqa: E402
from peftguard.padbench.training.fleet import Fleet, train_fleet  # noqa: E402
from peftguard.padbench.training.peft_config import peft_config  # noqa: E402
from peftguard.padbench.training.reference import train_reference  # noqa: E402

from .test_fleet import assert_equal  # noqa: E402

LAST = (1,)
"""Of the two layers of the tiny models."""


@pytest.mark.parametrize("method", [Method.LORA, Method.DORA, Method.ADALORA])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_equals_peft(family: str, method: Method, bases: dict[str, LoadedBase]) -> None:
    recipes = [own.model_copy(update={"layers": LAST}) for own in members(family, method)]
    data = [rows(count, seed) for seed, count in enumerate((30, 50, 20))]
    trained = train_fleet(recipes, data, bases[family])
    for own, examples, adapter in zip(recipes, data, trained, strict=True):
        assert not any(".0." in name for name in adapter.tensors)
        assert_equal(adapter, train_reference(own, examples, bases[family]))


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_same_numbers_with_and_without(
    family: str, bases: dict[str, LoadedBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one length: every product has the shape it has without the cache."""
    own = recipe(family, layers=LAST, batch_size=4, steps=8)
    data = [rows(60, 1)]
    data = [[row._replace(text=" ".join(row.text.split()[:2])) for row in data[0]]]
    if family == "llama":
        data = [[row._replace(completion="w1") for row in data[0]]]
    cached = train_fleet([own], data, bases[family])[0]
    monkeypatch.setattr(Fleet, "_frozen_below", lambda _: None)
    plain = train_fleet([own], data, bases[family])[0]
    assert_equal(cached, plain, within=1e-6)


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("room", [0, 600, 2**20])
def test_states_are_the_models_own(
    family: str, room: int, bases: dict[str, LoadedBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleets, "Below", _with_room(room))
    fleet = Fleet([recipe(family, layers=LAST)], bases[family], "cpu", "fp32")
    below: Any = fleet._below
    tokens = [[2, 5, 9], [2, 7], [2, 5, 9], [2, 8, 11, 12]]
    stack = fleet.model.bert.encoder.layer if family == "bert" else fleet.model.model.layers
    mask = torch.tensor([[n < len(row) for n in range(4)] for row in tokens]).long()
    ids = torch.tensor([row + [0] * (4 - len(row)) for row in tokens])
    seen: list[Any] = []
    hook = stack[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    fleet.model.base_model(ids, attention_mask=mask)
    hook.remove()
    for _ in range(2):
        states = below.states(tokens)
        for row, state, expected in zip(tokens, states, seen[0], strict=True):
            torch.testing.assert_close(state[: len(row)], expected[: len(row)])
            assert torch.count_nonzero(state[len(row) :]) == 0
    assert sum(state.nbytes for state in below._kept.values()) <= room
    assert len(below._kept) == {0: 0, 600: 1}.get(room, 3)
    assert not any("forward" in vars(layer) for layer in stack)


def test_a_row_is_computed_once(bases: dict[str, LoadedBase]) -> None:
    asked: list[Sequence[list[int]]] = []
    below: Any = Fleet([recipe(layers=LAST)], bases["bert"], "cpu", "fp32")._below
    forward = below._forward

    def noted(tokens: Sequence[list[int]]) -> object:
        asked.append(tokens)
        return forward(tokens)

    below._forward = noted
    below.states([[2, 5], [2, 6], [2, 5]])
    below.states([[2, 6], [2, 7, 8]])
    assert asked == [[[2, 5], [2, 6]], [[2, 7, 8]]]


def test_adapters_in_the_first_layer_have_nothing_below(bases: dict[str, LoadedBase]) -> None:
    for layers in (None, (0,), (0, 1)):
        assert Fleet([recipe(layers=layers)], bases["bert"], "cpu", "fp32")._below is None


def test_config_and_refusals(bases: dict[str, LoadedBase]) -> None:
    config = peft_config(recipe(layers=(0, 1)), task_type="SEQ_CLS")
    assert config.layers_to_transform == [0, 1]
    assert peft_config(recipe(), task_type="SEQ_CLS").layers_to_transform is None
    with pytest.raises(SettingsError, match="in layer 7 of the base"):
        train_fleet([recipe(layers=(1, 7))], [rows(8, 0)], bases["bert"])
    with pytest.raises(SettingsError, match="layers"):
        train_fleet([recipe(layers=LAST), recipe()], [rows(8, 0)] * 2, bases["bert"])


def _with_room(room: int) -> Any:
    return lambda layers, first, forward: Below(layers, first, forward, room)
