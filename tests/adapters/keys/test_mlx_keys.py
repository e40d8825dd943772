"""MLX-LM names and settings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from peftguard.adapters.adapter import open_adapter
from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.keys import in_peft_terms, recognise
from peftguard.adapters.keys.base import Part, Payload
from peftguard.adapters.keys.mlx import MLX, states_scale
from peftguard.adapters.keys.peft import PEFT

CONFIG = {
    "fine_tune_type": "lora",
    "model": "Qwen/Qwen2.5-0.5B-Instruct",
    "num_layers": 4,
    "lora_parameters": {"rank": 8, "alpha": 16, "dropout": 0.0, "scale": 10.0},
}


def infos(**shapes: tuple[int, ...]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, "F32", shape, 0) for name, shape in shapes.items()}


def test_linear_layers_are_stored_the_other_way_round() -> None:
    q = "model.layers.20.self_attn.q_proj"
    tensors = infos(**{f"{q}.lora_a": (896, 8), f"{q}.lora_b": (8, 896), f"{q}.m": (896,)})
    assert recognise(tensors, None) is MLX
    assert MLX.parse(tensors, None) == [
        Part(f"{q}.lora_a", q, "lora_A", transposed=True),
        Part(f"{q}.lora_b", q, "lora_B", transposed=True),
        Part(f"{q}.m", q, "lora_magnitude_vector"),
    ]


def test_embeddings() -> None:
    table = "model.embed_tokens"
    tensors = infos(**{f"{table}.lora_a": (512, 4), f"{table}.lora_b": (4, 64)})
    assert MLX.parse(tensors, None) == [
        Part(f"{table}.lora_a", table, "lora_embedding_A", transposed=True),
        Part(f"{table}.lora_b", table, "lora_embedding_B", transposed=True),
    ]


@pytest.mark.parametrize("shape", [(4, 2, 8), (8, 8)])
def test_experts_old_and_new(shape: tuple[int, ...]) -> None:
    gate = "model.layers.0.mlp.switch_mlp.gate_proj"
    tensors = infos(**{f"{gate}.lora_a": shape, f"{gate}.lora_b": (4, 6, 2)})
    assert MLX.parse(tensors, None) == [
        Part(f"{gate}.lora_a", gate, "experts_lora_A"),
        Part(f"{gate}.lora_b", gate, "experts_lora_B"),
    ]


def test_a_fully_tuned_model_is_payload() -> None:
    tensors = infos(
        **{
            "model.embed_tokens.weight": (512, 64),
            "model.layers.0.self_attn.q_proj.weight": (64, 64),
            "model.layers.0.self_attn.q_proj.bias": (64,),
            "model.layers.0.input_layernorm.weight": (64,),
        }
    )
    config = {"fine_tune_type": "full"}
    assert recognise(tensors, config) is MLX
    kinds = [entry.kind for entry in MLX.parse(tensors, config) if isinstance(entry, Payload)]
    assert kinds == ["embedding", "module-to-save", "bias", "norm"]
    assert "peft_type" not in in_peft_terms(config)


def test_settings_in_peft_terms() -> None:
    config = in_peft_terms(CONFIG)
    assert config.items() >= CONFIG.items()
    assert (config["peft_type"], config["use_dora"], config["r"]) == ("LORA", False, 8)
    assert config["lora_alpha"] == 80.0
    assert config["base_model_name_or_path"] == "Qwen/Qwen2.5-0.5B-Instruct"
    assert in_peft_terms(CONFIG | {"fine_tune_type": "dora"})["use_dora"] is True


def test_before_late_2024_alpha_counted() -> None:
    old = {"lora_layers": 4, "lora_parameters": CONFIG["lora_parameters"]}
    assert in_peft_terms(old)["lora_alpha"] == 160.0
    without = {"lora_layers": 4, "lora_parameters": {"rank": 8, "scale": 20.0}}
    assert in_peft_terms(without)["lora_alpha"] == 160.0


@pytest.mark.parametrize("parameters", [None, [], {}, {"rank": "8", "scale": True}, {"scale": "x"}])
def test_odd_settings_are_passed_on(parameters: object) -> None:
    config = in_peft_terms({"fine_tune_type": "lora", "lora_parameters": parameters})
    assert not states_scale(config)
    given = parameters if isinstance(parameters, dict) else {}
    assert config.get("r") == given.get("rank")
    assert config.get("lora_alpha") == given.get("scale")


def test_the_scale_does_not_depend_on_a_rank_that_is_missing() -> None:
    config = in_peft_terms({"num_layers": 4, **_lora(scale=10.0)}, stored_rank=4)
    assert (config["r"], config["lora_alpha"]) == (4, 40.0)
    assert states_scale(config)


def test_a_scale_that_is_missing_is_one() -> None:
    config = in_peft_terms({"num_layers": 4, **_lora(rank=4)}, stored_rank=4)
    assert (config["r"], config["lora_alpha"]) == (4, 4)
    assert not states_scale(config)
    assert states_scale({"fine_tune_type": "full"})


def _lora(**parameters: object) -> dict[str, object]:
    return {"fine_tune_type": "lora", "lora_parameters": parameters}


@pytest.mark.parametrize(
    ("config", "scale", "is_known"),
    [
        (_lora(scale=10.0), 10.0, True),
        (_lora(rank=2), 1.0, False),
        ({"fine_tune_type": "lora", "lora_parameters": "x"}, 1.0, False),
        ({}, 1.0, False),
    ],
)
def test_an_unknown_scale_is_reported(
    tmp_path: Path, config: dict[str, object], scale: float, is_known: bool
) -> None:
    factors = {"q.lora_a": np.ones((6, 2), np.float32), "q.lora_b": np.ones((2, 4), np.float32)}
    save_file(factors, tmp_path / "adapters.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with open_adapter(tmp_path) as adapter:
        (update,) = adapter.updates()
        codes = [finding.code for finding in adapter.findings]
    assert update.scale == scale
    assert codes == ([] if is_known else ["integrity.no-config"])
    assert bool(adapter.incomplete) is not is_known


def test_a_peft_config_is_left_alone() -> None:
    config = {"peft_type": "LORA", "lora_parameters": {"rank": 8}, "r": 4}
    assert in_peft_terms(config) == config
    assert recognise(infos(**{"a.lora_a": (8, 2)}), config) is PEFT


@given(
    st.dictionaries(
        st.one_of(
            st.text(max_size=30),
            st.builds("{}.{}".format, st.text(max_size=4), st.sampled_from(["lora_a", "lora_b"])),
            st.sampled_from(["lora_a", ".m", "m", "x.m", "x.norm.weight"]),
        ),
        st.lists(st.integers(0, 9), max_size=4).map(tuple),
        max_size=12,
    ),
    st.sampled_from([None, CONFIG, {"fine_tune_type": "full"}]),
)
def test_every_tensor_comes_out_once_in_order(
    shapes: dict[str, tuple[int, ...]], config: dict[str, object] | None
) -> None:
    tensors = infos(**shapes)
    assert [entry.tensor for entry in MLX.parse(tensors, config)] == list(tensors)
