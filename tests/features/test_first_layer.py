"""What the first attention layer is given for a token, against the models of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.toy_base import PIECES, WORDS, write_llama, write_tokenizer

from peftguard.errors import MalformedFile, UnsupportedAdapter
from peftguard.features.vocabulary import read_vocabulary

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2}
GROUPED = {**SMALL, **HEADS, "num_key_value_heads": 1, "head_dim": 8}
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "bert": ("Bert", {**SMALL, **HEADS}, "encoder.layer.0.attention.self.query"),
    "roberta": ("Roberta", {**SMALL, **HEADS}, "encoder.layer.0.attention.self.query"),
    "distilbert": (
        "DistilBert",
        {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2},
        "transformer.layer.0.attention.q_lin",
    ),
    "llama": ("Llama", GROUPED, "layers.0.self_attn.q_proj"),
    "qwen2": ("Qwen2", GROUPED, "layers.0.self_attn.q_proj"),
    "gemma": ("Gemma", GROUPED, "layers.0.self_attn.q_proj"),
    "gemma3": ("Gemma3Text", GROUPED, "layers.0.self_attn.q_proj"),
    "phi": ("Phi", {**SMALL, **HEADS}, "layers.0.self_attn.q_proj"),
    "gpt2": ("GPT2", {"n_embd": 16, "n_layer": 2, "n_head": 2}, "h.0.attn.c_attn"),
    "gptj": ("GPTJ", {"n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 4}, "h.0.attn.q_proj"),
    "opt": (
        "OPT",
        {
            "hidden_size": 16,
            "ffn_dim": 24,
            "num_hidden_layers": 2,
            **HEADS,
            "word_embed_proj_dim": 16,
        },
        "decoder.layers.0.self_attn.q_proj",
    ),
    "bloom": (
        "Bloom",
        {"hidden_size": 16, "n_layer": 2, "n_head": 2},
        "h.0.self_attention.query_key_value",
    ),
    "falcon": (
        "Falcon",
        {"hidden_size": 16, "num_hidden_layers": 2, **HEADS, "alibi": False},
        "h.0.self_attention.query_key_value",
    ),
    "pythia": ("GPTNeoX", {**SMALL, **HEADS}, "layers.0.attention.query_key_value"),
    "t5": (
        "T5Encoder",
        {"d_model": 16, "d_ff": 24, "num_layers": 2, "num_heads": 2, "d_kv": 8},
        "encoder.block.0.layer.0.SelfAttention.q",
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def written(kind: str, folder: Path) -> Any:
    """A base of random numbers in a folder, one vector for all of its positions."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    name, sizes, _ = KINDS[kind]
    settings = getattr(transformers, f"{name.removesuffix('Encoder')}Config")
    count = len(PIECES["bpe"]) + len(WORDS)
    torch.manual_seed(0)
    config = settings(vocab_size=count, pad_token_id=0, **sizes)
    model = getattr(transformers, f"{name}Model")(config).eval()
    with torch.no_grad():
        for own, value in model.named_parameters():
            value.copy_(torch.randn_like(value) / 2)
            if "position_embeddings" in own or "embed_positions" in own or own.startswith("wpe"):
                value.copy_(value[:1].clone().expand_as(value))
    model.save_pretrained(folder)
    write_tokenizer(folder, PIECES["bpe"] + [f"Ġ{word}" for word in WORDS])
    return model


def given_to_attention(model: Any, module: str) -> np.ndarray:
    """(words, h) as a hook sees it, a word at a time."""
    import torch

    seen: list[Any] = []
    model.get_submodule(module).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    first = len(PIECES["bpe"])
    with torch.no_grad():
        model(input_ids=torch.arange(first, first + len(WORDS))[:, None])
    values: np.ndarray = seen[0].reshape(len(WORDS), -1).numpy()
    return values


def test_as_the_model_itself_gives_it(kind: str, tmp_path: Path) -> None:
    model = written(kind, tmp_path)
    shaped = given_to_attention(model, KINDS[kind][2])
    found = read_vocabulary(tmp_path)
    assert found.words == tuple(WORDS)
    centred = shaped - shaped.mean(axis=0)
    # What is alone in a word is its own vector less others': differences of words say it all.
    again = found.alone - found.alone.mean(axis=0)
    cosines = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = cosines @ cosines.T
    np.fill_diagonal(cosines, -np.inf)
    near = np.argsort(-cosines, axis=1)[:, :12]
    expected = centred - centred[near].mean(axis=1)
    np.testing.assert_allclose(again, expected - expected.mean(axis=0), atol=2e-3)
    embeddings = model.get_input_embeddings().weight.detach().numpy()[len(PIECES["bpe"]) :]
    np.testing.assert_allclose(found.embeddings, embeddings, rtol=1e-6)


def test_sentencepiece_marks_words_in_its_own_way(tmp_path: Path) -> None:
    expected = read_vocabulary(write_llama(tmp_path))
    pieces = [[f"\u2581{word}", -1.0] for word in WORDS]
    listed = [[piece, 0.0] for piece in PIECES["bpe"]] + pieces
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": listed}}))
    found = read_vocabulary(tmp_path)
    assert found.words == expected.words
    np.testing.assert_array_equal(found.alone, expected.alone)


def test_a_kind_that_puts_something_between_is_refused(tmp_path: Path) -> None:
    written("opt", tmp_path)
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "model.safetensors"
    more = {"decoder.project_in.weight": np.zeros((16, 8), np.float32)}
    save_file({**load_file(path), **more}, path)
    with pytest.raises(UnsupportedAdapter, match="no kind of base model"):
        read_vocabulary(tmp_path)


def test_a_norm_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MalformedFile, match=r"layers\.0\.input_layernorm\.weight"):
        read_vocabulary(write_llama(tmp_path, model__layers__0__input_layernorm__weight=None))
