"""llama.cpp names and key-values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.keys import config_from_metadata, recognise
from peftguard.adapters.keys.base import Part, Payload
from peftguard.adapters.keys.gguf import GGUF
from peftguard.limits import Limits


def infos(**shapes: tuple[int, ...]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, "F32", shape, 0) for name, shape in shapes.items()}


def test_names_that_the_gguf_library_writes(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    layer = gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ATTN_Q].format(bid=3)
    experts = gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.FFN_GATE_EXP].format(bid=3)
    table = gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.TOKEN_EMBD]
    norm = gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ATTN_NORM].format(bid=3)
    writer = gguf.GGUFWriter(tmp_path / "lora.gguf", "llama")
    for name, shape in {
        f"{layer}.weight.lora_a": (2, 8),
        f"{layer}.weight.lora_b": (6, 2),
        f"{experts}.weight.lora_a": (4, 2, 8),
        f"{experts}.weight.lora_b": (4, 6, 2),
        f"{table}.weight.lora_a": (32, 2),
        f"{table}.weight.lora_b": (8, 2),
        f"{norm}.weight": (8,),
    }.items():
        writer.add_tensor(name, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = gguf.GGUFReader(tmp_path / "lora.gguf").tensors
    tensors = infos(**{tensor.name: tuple(reversed(tensor.shape.tolist())) for tensor in read})
    assert recognise(tensors, None) is GGUF
    assert GGUF.parse(tensors, None) == [
        Part(f"{layer}.weight.lora_a", "blk.3.attn_q", "lora_A"),
        Part(f"{layer}.weight.lora_b", "blk.3.attn_q", "lora_B"),
        Part(f"{experts}.weight.lora_a", "blk.3.ffn_gate_exps", "experts_lora_A"),
        Part(f"{experts}.weight.lora_b", "blk.3.ffn_gate_exps", "experts_lora_B"),
        Part(f"{table}.weight.lora_a", "token_embd", "lora_embedding_A", transposed=True),
        Part(f"{table}.weight.lora_b", "token_embd", "lora_embedding_B"),
        Payload(f"{norm}.weight", "blk.3.attn_norm", "norm"),
    ]


def test_a_gguf_file_is_llama_cpps_whatever_its_names() -> None:
    tensors = infos(**{"blk.0.attn_q.bias.lora_a": (2, 8), "blk.0.attn_q.weight.lora_a": (2, 8)})
    assert recognise(tensors, None, "gguf") is GGUF
    assert recognise(tensors, {"peft_type": "LORA"}, "gguf") is GGUF
    assert recognise(tensors, None, "safetensors") is not GGUF


def test_a_matrix_is_no_norm() -> None:
    (entry,) = GGUF.parse(infos(**{"blk.0.attn_norm.weight": (8, 8)}), None)
    assert entry == Payload("blk.0.attn_norm.weight", "blk.0.attn_norm", "unexplained")


KV = {"general.type": "adapter", "adapter.type": "lora", "general.architecture": "llama"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"adapter.lora.alpha": "16.0"}, {"lora_alpha": 16.0}),
        ({"adapter.lora.alpha": "0"}, {}),
        ({}, {}),
        ({"adapter.lora.alpha": "inf"}, {"lora_alpha": "inf"}),
        ({"adapter.lora.alpha": "big"}, {"lora_alpha": "big"}),
        (
            {"adapter.alora.invocation_tokens": "[1, 22, 3]"},
            {"alora_invocation_tokens": [1, 22, 3]},
        ),
        ({"adapter.alora.invocation_tokens": "[[1]]"}, {"alora_invocation_tokens": "[[1]]"}),
        ({"adapter.alora.invocation_tokens": "[1,,2]"}, {"alora_invocation_tokens": "[1,,2]"}),
        (
            {"general.base_model.0.repo_url": "https://huggingface.co/meta-llama/Llama-3.2-1B"},
            {"base_model_name_or_path": "meta-llama/Llama-3.2-1B"},
        ),
        (
            {"general.base_model.0.name": "Llama 3.2 1B"},
            {"base_model_name_or_path": "Llama 3.2 1B"},
        ),
    ],
)
def test_metadata(values: dict[str, str], expected: dict[str, object]) -> None:
    config = config_from_metadata(KV | values, Limits())
    assert config == {"peft_type": "LORA", "architecture": "llama"} | expected


def test_metadata_of_a_model_is_none() -> None:
    metadata = {"general.type": "model", "general.architecture": "llama"}
    assert config_from_metadata(metadata, Limits()) is None


@given(
    st.dictionaries(
        st.one_of(
            st.text(max_size=30),
            st.text(max_size=9).map("{}.weight.lora_a".format),
            st.text(max_size=9).map("{}.lora_b".format),
        ),
        st.lists(st.integers(0, 9), max_size=4).map(tuple),
        max_size=12,
    )
)
def test_every_tensor_comes_out_once_in_order(shapes: dict[str, tuple[int, ...]]) -> None:
    tensors = infos(**shapes)
    assert [entry.tensor for entry in GGUF.parse(tensors, None)] == list(tensors)


@given(st.dictionaries(st.sampled_from([*KV, "adapter.lora.alpha"]), st.text(max_size=12)))
def test_any_metadata_is_survived(metadata: dict[str, str]) -> None:
    config = config_from_metadata(metadata, Limits())
    assert config is None or isinstance(config["peft_type"], str)
