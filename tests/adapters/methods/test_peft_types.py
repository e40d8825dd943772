"""The table of methods is complete, and names a method from its tensors alone."""

from __future__ import annotations

import pytest

from peftguard.adapters.methods import METHODS, PEFT_TYPES, method_of_parts, why_unsupported
from peftguard.adapters.methods.peft_types import ALL_PREFIXES


def test_names_every_method_of_the_installed_peft() -> None:
    peft = pytest.importorskip("peft")
    assert set(PEFT_TYPES) == {peft_type.value for peft_type in peft.PeftType}


def test_prefixes_are_those_that_peft_registers() -> None:
    mapping = pytest.importorskip("peft.mapping")
    for peft_type, prefix in mapping.PEFT_TYPE_TO_PREFIX_MAPPING.items():
        assert any(prefix.startswith(ours) or ours.startswith(prefix) for ours in ALL_PREFIXES), (
            peft_type
        )


def test_exactly_the_methods_without_a_reason_are_exact() -> None:
    assert {name for name, method in PEFT_TYPES.items() if not method.why} == set(METHODS)
    assert all(why_unsupported(name) for name in PEFT_TYPES.keys() - METHODS.keys())
    assert "no method of PEFT" in why_unsupported("NOT_YET_INVENTED")


@pytest.mark.parametrize(
    ("parts", "peft_type"),
    [
        ({"lora_A", "lora_B"}, "LORA"),
        ({"lora_embedding_A"}, "LORA"),
        ({"experts_lora_A", "experts_lora_B"}, "LORA"),
        ({"lora_A", "lora_B", "lora_E"}, "ADALORA"),
        ({"hada_w1_a"}, "LOHA"),
        ({"lokr_w1", "alpha"}, "LOKR"),
        ({"vera_lambda_b"}, "VERA"),
        ({"pvera_lambda_b"}, "PVERA"),
        ({"randlora_A"}, "RANDLORA"),
        ({"ia3_l"}, "IA3"),
        ({"oft_R"}, "OFT"),
        ({"boft_R"}, "BOFT"),
        ({"supertuning_lora_A"}, "SUPERTUNING"),
        ({"poly_lora_A"}, "POLY"),
        ({"internal_xlora_classifier.layers.0"}, "XLORA"),
        ({"alpha"}, "UNKNOWN"),
        (set(), "UNKNOWN"),
    ],
)
def test_method_of_parts(parts: set[str], peft_type: str) -> None:
    assert method_of_parts(parts) == peft_type
