"""Which modules a config takes, as PEFT itself decides it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftguard.errors import InputError
from peftguard.verdict.checks.selection import Selection

MODULES = [
    "lm_head",
    "layers.0.q_proj",
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "model.layers.1.self_attn.v_proj",
    "model.layers.12.experts.0.gate.q_proj",
    "model.blocks.3.layers.1.q_proj",
    "model.layers.2",
]
NAMES = ["q_proj", "v_proj", "self_attn.q_proj", "lm_head", "model.layers.1.self_attn.q_proj", "2"]


@settings(deadline=None, max_examples=200)
@given(
    st.sets(st.sampled_from(NAMES), min_size=1),
    st.one_of(
        st.none(),
        st.sets(st.sampled_from(NAMES)).map(sorted),
        st.sampled_from([".*q_proj", r"model\..*\.1\..*", "lm_head"]),
    ),
    st.one_of(st.none(), st.integers(0, 3), st.lists(st.sampled_from([0, 1, 2, 12]))),
    st.sampled_from([None, "layers", ["layers"], ["blocks", "layers"], []]),
)
def test_it_takes_what_peft_takes(
    targets: set[str], excluded: Any, layers: Any, pattern: Any
) -> None:
    peft = pytest.importorskip("peft")
    from peft.tuners.tuners_utils import check_target_module_exists

    config = {
        "target_modules": sorted(targets),
        "exclude_modules": excluded,
        "layers_to_transform": layers,
        "layers_pattern": pattern if layers is not None else None,
    }
    theirs = peft.LoraConfig(**config)
    selection = Selection.of(config)
    for module in MODULES:
        taken = bool(check_target_module_exists(theirs, module))
        assert (selection.leaves_out(module) is None) is taken, module


def test_names_that_no_module_answers_to() -> None:
    config = {"target_modules": ["q", "v", "head", "attn.k"], "exclude_modules": ["k"]}
    assert Selection.of(config).absent({"layers.0.q"}) == ["head", "v"]
    # An expression may exclude what the names of the adapted modules do not show.
    assert Selection.of({**config, "exclude_modules": r".*\.v"}).absent({"layers.0.q"}) == []


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"layers_to_transform": "0"}, "integrity.config-type"),
        ({"layers_to_transform": ["0"]}, "integrity.config-type"),
        ({"layers_to_transform": [-1]}, "integrity.config-type"),
        ({"exclude_modules": 5}, "integrity.config-type"),
        ({"layers_pattern": {"a": 1}}, "integrity.config-type"),
        ({"layers_pattern": "(a+)+"}, "integrity.pattern-skipped"),
    ],
)
def test_settings_that_cannot_be_read(config: dict[str, Any], code: str) -> None:
    with pytest.raises(InputError) as raised:
        Selection.of(config)
    assert raised.value.code == code
