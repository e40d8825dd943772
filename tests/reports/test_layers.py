from __future__ import annotations

from collections.abc import Callable

from peftguard.features.profile import ModuleProfile
from peftguard.reports.layers import outlying, stacks
from peftguard.results import Scan


def module(layer: str | None, role: str) -> ModuleProfile:
    return ModuleProfile.model_construct(module=f"{layer}.{role}", layer=layer, role=role)


def test_layers_are_in_numeric_order_and_rows_in_file_order() -> None:
    modules = [module(f"h.{at}", role) for at in (10, 9, 0) for role in ("v", "q")]
    (stack,) = stacks(modules)
    assert (stack.name, stack.roles, stack.layers) == ("h", ("v", "q"), ("0", "9", "10"))
    assert stack.cells[1, 2] == [1]


def test_encoder_and_decoder_are_two_stacks_and_the_head_a_third() -> None:
    modules = [module("encoder.block.0", "q"), module("decoder.block.0", "q"), module(None, "head")]
    assert [stack.name for stack in stacks(modules)] == ["encoder.block", "decoder.block", ""]


def test_experts_share_a_cell(scan_of: Callable[..., Scan]) -> None:
    (stack,) = stacks(scan_of("experts").results[0].modules)
    assert stack.roles == ("mlp.experts.*.w1",)
    assert stack.cells[0, 1] == list(range(8, 16))


def test_hostile_layer_numbers_cost_nothing() -> None:
    (stack,) = stacks([module(f"h.{'9' * 5000}", "q"), module("h.0", "q")])
    assert stack.layers == ("0", "9" * 5000)


def test_module_that_a_finding_names_is_marked(scan_of: Callable[..., Scan]) -> None:
    assert outlying(scan_of("llama").results[0]) == {36}
