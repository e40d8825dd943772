"""What every method does to an adapter: its form stays, and what it promises holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.mitigation.conftest import KINDS, Toy

from peftguard.adversary.arithmetic import change
from peftguard.errors import SettingsError, UnsupportedAdapter
from peftguard.mitigation.factored import Factored, Layer
from peftguard.mitigation.fine_mixing import mixed_with_base
from peftguard.mitigation.interpolation import Interpolation
from peftguard.mitigation.method import Course, Given, Need
from peftguard.mitigation.pruning import DirectionPruning, EntryPruning
from peftguard.mitigation.registry import METHODS, method_for
from peftguard.mitigation.rescaling import Rescaling

SHORT = Course(steps=2)


def whole(layer: Layer) -> np.ndarray:
    return layer.scale * layer.B.astype(float) @ layer.A


def regauged(adapter: Factored) -> Factored:
    """The same updates, written as other products."""
    rng = np.random.default_rng(0)

    def turned(layer: Layer) -> Layer:
        M = np.eye(layer.rank) + 0.3 * rng.normal(size=(layer.rank, layer.rank))
        A, B = M @ layer.A, layer.B @ np.linalg.inv(M)
        return replace(layer, A=A.astype(np.float32), B=B.astype(np.float32))

    return replace(adapter, layers={k: turned(layer) for k, layer in adapter.layers.items()})


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_form_stays_and_the_adapter_changes(toy: Toy, kind: str, name: str) -> None:
    before, method = toy.read(kind), METHODS[name]
    if hasattr(method, "course"):
        method = replace(method, course=SHORT)
    copies = {key: value.copy() for key, value in before.tensors().items()}
    benign = toy.read("other" if kind == "lora" else kind)
    after = method.apply(before, toy.given(benign=benign))
    assert {k: v.shape for k, v in after.tensors().items()} == {
        k: v.shape for k, v in copies.items()
    }
    assert all(np.isfinite(tensor).all() for tensor in after.tensors().values())
    for key, value in before.tensors().items():
        np.testing.assert_array_equal(value, copies[key])
    if name not in ("interpolate", "intruders") or kind == "lora":
        assert change(before, [after]) > 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_done_without_what_is_needed(toy: Toy, name: str) -> None:
    method = METHODS[name]
    assert method.missing(Given()) == sorted(method.needs)
    if method.needs:
        with pytest.raises(SettingsError, match=f"{name} needs .*--{min(method.needs)}"):
            method_for(name, Given())
    assert method_for(name, toy.given()) is method


def test_auto_takes_the_best_that_can_be_done(toy: Toy) -> None:
    assert method_for("auto", toy.given()).name == "fine-mixing-benign"
    assert method_for("auto", toy.given(benign=None)).name == "fine-mixing"
    assert method_for("auto", toy.given(rows=())).name == "remove-trigger"
    with pytest.raises(SettingsError, match=r"fine-mixing needs .* remove-trigger needs"):
        method_for("auto", toy.given(rows=(), trigger=None))
    with pytest.raises(SettingsError, match="did you mean 'prune'"):
        method_for("prun", Given())


def test_parameters_are_numbers_by_name() -> None:
    assert METHODS["remove-trigger"].parameters == {}
    assert METHODS["rescale"].parameters == {"factor": 0.5}
    mixing = METHODS["fine-mixing"].parameters
    assert mixing.keys() == {"kept", "course.steps", "course.rate", "course.batch_size"}


def test_rescaling(toy: Toy) -> None:
    before = toy.read()
    after = Rescaling(0.25).apply(before, Given())
    for module, layer in after.layers.items():
        np.testing.assert_allclose(whole(layer), 0.25 * whole(before.layers[module]), rtol=1e-5)


def test_interpolation_is_the_best_approximation_of_the_mean(toy: Toy) -> None:
    before, benign = toy.read(), toy.read("other")
    after = Interpolation(0.25).apply(before, Given(benign=benign))
    for module, layer in after.layers.items():
        mean = 0.75 * whole(before.layers[module]) + 0.25 * whole(benign.layers[module])
        left, values, right = np.linalg.svd(mean)
        rank = layer.rank
        best = left[:, :rank] * values[:rank] @ right[:rank]
        np.testing.assert_allclose(whole(layer), best, atol=1e-4)
    for name, head in after.heads.items():
        mean = 0.75 * before.heads[name] + 0.25 * benign.heads[name]
        np.testing.assert_allclose(head, mean, atol=1e-6)


def test_adapters_of_other_modules_are_not_mixed(toy: Toy) -> None:
    with pytest.raises(UnsupportedAdapter, match="other modules"):
        Interpolation().apply(toy.read(), Given(benign=toy.read("rslora")))


def test_pruning_keeps_the_largest_directions(toy: Toy) -> None:
    before = toy.read()
    after = DirectionPruning(0.5).apply(before, Given())
    for module, layer in after.layers.items():
        wanted = np.linalg.svd(whole(before.layers[module]), compute_uv=False)
        found = np.linalg.svd(whole(layer), compute_uv=False)
        kept = layer.rank // 2
        np.testing.assert_allclose(found[:kept], wanted[:kept], rtol=1e-4)
        np.testing.assert_allclose(found[kept:], 0, atol=1e-5)


def test_pruning_entries(toy: Toy) -> None:
    after = EntryPruning(0.5).apply(toy.read(), Given())
    for layer in after.layers.values():
        assert np.mean(layer.A == 0) == pytest.approx(0.5, abs=0.02)
        assert np.mean(layer.B == 0) == pytest.approx(0.5, abs=0.02)


def test_mixing_takes_whole_rows(toy: Toy) -> None:
    before = toy.read()
    after = mixed_with_base(before, 0.5, np.random.default_rng(0))
    shares = []
    for module, layer in after.layers.items():
        old, new = whole(before.layers[module]), whole(layer)
        stays = np.abs(new).sum(axis=1) > 0
        np.testing.assert_allclose(new[stays], old[stays], rtol=1e-6)
        shares.append(stays.mean())
    assert np.mean(shares) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("name", ["rescale", "prune", "prune-entries", "interpolate"])
def test_how_an_update_is_factored_does_not_matter(toy: Toy, name: str) -> None:
    before, given = toy.read(), toy.given()
    one = METHODS[name].apply(before, given)
    other = METHODS[name].apply(regauged(before), given)
    for module, layer in one.layers.items():
        np.testing.assert_allclose(whole(layer), whole(other.layers[module]), atol=1e-3)


def test_a_layer_of_rank_0_stays_so(toy: Toy) -> None:
    before = toy.read()
    first, layer = next(iter(before.layers.items()))
    empty = replace(layer, A=layer.A[:0], B=layer.B[:, :0])
    adapter = replace(before, layers={**before.layers, first: empty})
    for name, method in METHODS.items():
        if hasattr(method, "course"):
            method = replace(method, course=SHORT)
        after = method.apply(adapter, toy.given())
        assert after.layers[first].rank == 0, name


def test_needs_are_named_by_their_options() -> None:
    assert {need.value for need in Need} == {"base", "data", "report", "benign"}
