"""The table of methods is complete, and names a method from its tensors alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from peftguard.adapters.adapter import open_adapter
from peftguard.adapters.methods import (
    METHODS,
    MIXTURES,
    PEFT_TYPES,
    method_of_modules,
    method_of_parts,
    why_unsupported,
)
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


def test_methods_mixed_by_module() -> None:
    lora, lokr = [("a", "lora_A"), ("a", "lora_B")], [("b", "lokr_w1"), ("b", "lokr_w2")]
    assert method_of_modules(lora) == "LORA"
    assert method_of_modules(lora + lokr) == "LOKR+LORA"
    assert method_of_modules([*lora, *lokr, ("c", "hada_w1_a")]) in MIXTURES
    assert method_of_modules([*lora, ("b", "lora_E")]) == "ADALORA"
    assert method_of_modules([]) == "UNKNOWN"


def test_a_learnt_magnitude_does_not_make_it_lora() -> None:
    assert method_of_parts({"lokr_w1", "lokr_w2", "lora_magnitude_vector"}) == "LOKR"
    assert method_of_parts({"lora_magnitude_vector"}) == "LORA"


def test_a_mixed_file_is_read_module_by_module(tmp_path: Path) -> None:
    tensors = {
        "lora_unet_a.lora_down.weight": np.ones((2, 6), np.float32),
        "lora_unet_a.lora_up.weight": np.ones((4, 2), np.float32),
        "lora_unet_b.lokr_w1": np.ones((2, 2), np.float32),
        "lora_unet_b.lokr_w2": np.ones((3, 3), np.float32),
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    with open_adapter(tmp_path / "lora.safetensors") as adapter:
        assert adapter.peft_type == "LOKR+LORA"
        assert [update.shape for update in adapter.updates()] == [(4, 6), (6, 6)]


def test_a_config_cannot_declare_a_mixture(tmp_path: Path) -> None:
    save_file(
        {"q.lora_A.weight": np.ones((2, 6), np.float32)}, tmp_path / "adapter_model.safetensors"
    )
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LOKR+LORA"}')
    with open_adapter(tmp_path) as adapter:
        assert adapter.method is None
