"""PEFT's tensor names: parts of every method, and what else travels along."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.keys.base import Part, Payload
from peftguard.adapters.keys.peft import PEFT

LORA = {"peft_type": "LORA"}


def parse(name: str, config: Any = None, shape: tuple[int, ...] = (4, 4)) -> Part | Payload:
    (entry,) = PEFT.parse({name: TensorInfo(name, "F32", shape, 0)}, config)
    assert entry.tensor == name
    return entry


@pytest.mark.parametrize(
    ("name", "module", "part"),
    [
        ("base_model.model.model.layers.0.q_proj.lora_A.weight", "model.layers.0.q_proj", "lora_A"),
        ("base_model.model.x.q.lora_A.default.weight", "x.q", "lora_A"),
        ("base_model.model.x.q.lora_B.my_adapter.weight", "x.q", "lora_B"),
        ("module.base_model.model.x.q.lora_B.weight", "x.q", "lora_B"),
        ("x.q.lora_B.weight", "x.q", "lora_B"),
        ("base_model.model.x.q.lora_B.bias", "x.q", "lora_B.bias"),
        ("base_model.model.x.q.lora_B.default.bias", "x.q", "lora_B.bias"),
        (
            "_fsdp_wrapped_module.base_model.model.x._fsdp_wrapped_module.q.lora_A.weight",
            "x.q",
            "lora_A",
        ),
        ("_orig_mod.base_model.model.x.q.lora_A.weight", "x.q", "lora_A"),
        ("base_model.model._orig_mod.x.q.lora_A.weight", "x.q", "lora_A"),
        ("base_model.model.x.embed.lora_embedding_A", "x.embed", "lora_embedding_A"),
        ("base_model.model.x.embed.lora_embedding_B.default", "x.embed", "lora_embedding_B"),
        ("base_model.model.x.q.lora_magnitude_vector", "x.q", "lora_magnitude_vector"),
        ("base_model.model.x.q.lora_magnitude_vector.weight", "x.q", "lora_magnitude_vector"),
        (
            "base_model.model.x.q.lora_magnitude_vector.default.weight",
            "x.q",
            "lora_magnitude_vector",
        ),
        ("base_model.model.x.experts.base_layer.lora_A.weight", "x.experts.base_layer", "lora_A"),
        ("base_model.model.a.base_layer.out_proj.lora_A.weight", "a.base_layer.out_proj", "lora_A"),
        ("base_model.model.x.q.lora_A", "x.q", "lora_A"),
        ("base_model.model.x.q.lora_E", "x.q", "lora_E"),
        ("base_model.model.x.q.ranknum", "x.q", "ranknum"),
        ("base_model.model.x.q.ranknum.default", "x.q", "ranknum"),
        ("base_model.model.x.q.hada_w1_a", "x.q", "hada_w1_a"),
        ("base_model.model.x.q.hada_t2", "x.q", "hada_t2"),
        ("base_model.model.x.q.lokr_w2_b", "x.q", "lokr_w2_b"),
        ("base_model.model.x.q.vera_lambda_d", "x.q", "vera_lambda_d"),
        ("base_model.vera_A", "", "vera_A"),
        ("base_model.vera_B.default", "", "vera_B"),
        ("base_model.vblora_vector_bank", "", "vblora_vector_bank"),
        ("base_model.model.x.q.ia3_l", "x.q", "ia3_l"),
        ("base_model.model.x.q.oft_R.weight", "x.q", "oft_R"),
        ("base_model.model.x.q.boft_R", "x.q", "boft_R"),
        ("base_model.model.x.q.lily_router.weight", "x.q", "lily_router"),
        ("base_model.model.x.norm.ln_tuning_layers.weight", "x.norm", "ln_tuning_layers"),
        ("base_model.model.x.q.poly_lora_A", "x.q", "poly_lora_A"),
        ("base_model.model.x.attn.adaption_prompt", "x.attn", "adaption_prompt"),
    ],
)
def test_parts(name: str, module: str, part: str) -> None:
    for config in (None, LORA):
        assert parse(name, config) == Part(name, module, part)


@pytest.mark.parametrize(
    ("name", "shape", "module", "kind"),
    [
        ("base_model.model.model.embed_tokens.weight", (9, 4), "model.embed_tokens", "embedding"),
        (
            "base_model.model.x.embed_tokens.base_layer.weight",
            (9, 4),
            "x.embed_tokens",
            "embedding",
        ),
        ("base_model.model.lm_head.weight", (9, 4), "lm_head", "embedding"),
        ("base_model.model.transformer.wte.weight", (9, 4), "transformer.wte", "embedding"),
        ("base_model.model.x.word_embeddings.weight", (9, 4), "x.word_embeddings", "embedding"),
        ("base_model.model.classifier.weight", (2, 4), "classifier", "classifier-head"),
        ("base_model.model.classifier.bias", (2,), "classifier", "classifier-head"),
        ("base_model.model.classifier.dense.weight", (4, 4), "classifier.dense", "classifier-head"),
        (
            "base_model.model.classifier.modules_to_save.default.weight",
            (2, 4),
            "classifier",
            "classifier-head",
        ),
        ("base_model.model.score.weight", (2, 4), "score", "classifier-head"),
        ("base_model.model.pre_classifier.weight", (4, 4), "pre_classifier", "classifier-head"),
        ("base_model.model.qa_outputs.weight", (2, 4), "qa_outputs", "classifier-head"),
        ("base_model.model.score.weight", (99, 99), "score", "module-to-save"),
        ("base_model.model.score.weight", (2, 3, 4), "score", "module-to-save"),
        ("base_model.model.score.0.weight", (2, 4), "score.0", "module-to-save"),
        ("base_model.model.score.0.bias", (2,), "score.0", "classifier-head"),
        ("base_model.model.summary.x.y.weight", (4, 4), "summary.x.y", "module-to-save"),
        ("base_model.model.pre_classifier.weight", (99, 99), "pre_classifier", "classifier-head"),
        (
            "base_model.model.classifier.dense.weight",
            (99, 99),
            "classifier.dense",
            "classifier-head",
        ),
        ("base_model.model.score.dense.weight", (99, 99), "score.dense", "module-to-save"),
        (
            "base_model.model.classifier.out_proj.weight",
            (99, 99),
            "classifier.out_proj",
            "module-to-save",
        ),
        (
            "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
            (1, 4),
            "model.embed_tokens",
            "token-delta",
        ),
        (
            "base_model.model.x.embed_tokens.trainable_tokens_delta",
            (1, 4),
            "x.embed_tokens",
            "token-delta",
        ),
        ("prompt_embeddings", (8, 4), "prompt_embeddings", "soft-prompt"),
        ("prefix_task_cols", (1, 8, 1), "prefix_task_cols", "soft-prompt"),
        ("base_model.model.x.q_proj.base_layer.bias", (4,), "x.q_proj", "bias"),
        ("base_model.model.x.q_proj.bias", (4,), "x.q_proj", "bias"),
        ("base_model.model.x.input_layernorm.weight", (4,), "x.input_layernorm", "norm"),
        ("base_model.model.x.ln_1.weight", (4,), "x.ln_1", "norm"),
        ("base_model.model.x.q_proj.bias", (4, 4), "x.q_proj", "unexplained"),
        ("base_model.model.x.norm.weight", (4, 4), "x.norm", "unexplained"),
        ("base_model.model.x.score.weight", (4, 4), "x.score", "unexplained"),
        ("base_model.model.x.q_proj.weight", (4, 4), "x.q_proj", "unexplained"),
        ("base_model.model.x.q_proj.lora_down", (4, 4), "x.q_proj", None),
        ("base_model.model.x.q_proj.alpha", (), "x.q_proj", "unexplained"),
        ("base_model.model.lora_A.weight", (4, 4), "lora_A.weight", "unexplained"),
        ("base_model.lora_A.weight", (4, 4), "lora_A.weight", "unexplained"),
        ("lora_A.weight", (4, 4), "lora_A.weight", "unexplained"),
        ("whatever", (4, 4), "whatever", "unexplained"),
    ],
)
def test_payload(name: str, shape: tuple[int, ...], module: str, kind: str | None) -> None:
    entry = parse(name, LORA, shape)
    if kind is None:
        assert entry == Part(name, module, "lora_down")
    else:
        assert entry == Payload(name, module, kind)


def test_modules_to_save_are_those_that_the_config_lists() -> None:
    config = {"modules_to_save": ["mlp.fc", 3]}
    name = "base_model.model.x.mlp.fc.dense.weight"
    assert parse(name, config) == Payload(name, "x.mlp.fc.dense", "module-to-save")
    assert parse("base_model.model.x.mlp.fcc.weight", config).kind == "unexplained"
    assert parse("base_model.model.x.mlp.fc.weight", None).kind == "module-to-save"
    assert (
        parse("base_model.model.x.mlp.fc.weight", {"modules_to_save": "fc"}).kind == "unexplained"
    )


def test_an_alpha_tensor_counts_only_without_a_config() -> None:
    name = "x.q_proj.alpha"
    assert parse(name, None, ()) == Part(name, "x.q_proj", "alpha")
    assert parse(name, LORA, ()) == Payload(name, "x.q_proj", "unexplained")


def test_an_alpha_of_no_module_is_no_part() -> None:
    assert parse(".alpha", None, ()) == Payload(".alpha", ".alpha", "unexplained")


def test_recognises_any_method() -> None:
    def known(name: str) -> bool:
        return PEFT.recognises({name: TensorInfo(name, "F32", (4, 4), 0)}, None)

    assert known("x.q.lora_A.weight")
    assert known("base_model.model.x.q.ia3_l")
    assert not known("x.q.weight")
    assert not known("lora_unet_x.alpha")


PIECES = ["base_model", "model", "lora_A", "lora_B", "weight", "bias", "default", "base_layer", "0"]
PIECES += ["vera_A", "modules_to_save", "", "trainable_tokens_delta", "_orig_mod", "alpha", "x"]
NAME = st.lists(st.sampled_from(PIECES), min_size=1, max_size=7).map(".".join)


@given(st.lists(NAME, unique=True, max_size=5), st.sampled_from([None, {}, LORA]))
def test_every_tensor_comes_out_once_and_in_order(names: list[str], config: Any) -> None:
    tensors = {name: TensorInfo(name, "F32", (2, 2), 0) for name in names}
    entries = PEFT.parse(tensors, config)
    assert [entry.tensor for entry in entries] == names
    shared = [entry.part for entry in entries if isinstance(entry, Part) and not entry.module]
    assert all(part.startswith("vera_A") for part in shared)
