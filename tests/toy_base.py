"""Base models in folders, as small as reading a vocabulary allows."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

WORDS = ["".join(letters) for letters in product("bdfgk", "aeiou", "lmn")]
"""75 of them."""
PIECES = {
    "wordpiece": ["[CLS]", "[SEP]", "##ing", "a", "!", "42", "naïve", "don't"],
    "bpe": ["<s>", "ing", "Ġa", "Ġ!", "Ġ42", "ĠnaÃ¯ve", "Ġ"],
}
"""Tokens that are no words."""


def write_bert(folder: Path, width: int = 16, words: list[str] = WORDS, **changes: object) -> Path:
    """BERT's kind: `changes` replaces tensors by name (`__` for a dot), None drops one."""
    tokens = PIECES["wordpiece"] + words
    rng = np.random.default_rng(width)
    tensors = {
        "word_embeddings.weight": families(rng, len(tokens), width),
        "position_embeddings.weight": rng.normal(size=(9, width)) / 4,
        "token_type_embeddings.weight": rng.normal(size=(2, width)) / 4,
        "LayerNorm.weight": rng.uniform(0.5, 2, width),
        "LayerNorm.bias": rng.normal(size=width) / 4,
    }
    named = {f"embeddings.{name}": array for name, array in tensors.items()}
    write_tokenizer(folder, tokens, prefix="##")
    return _save(folder, {**named, **_dotted(changes)})


def write_llama(folder: Path, width: int = 16, words: list[str] = WORDS, **changes: object) -> Path:
    """Llama's kind, with a byte-level tokenizer."""
    tokens = PIECES["bpe"] + [f"Ġ{word}" for word in words]
    rng = np.random.default_rng(width)
    tensors = {
        "model.embed_tokens.weight": families(rng, len(tokens), width),
        "model.layers.0.input_layernorm.weight": rng.uniform(0.5, 2, width),
        "model.layers.0.self_attn.q_proj.weight": rng.normal(size=(width, width)),
    }
    write_tokenizer(folder, tokens)
    return _save(folder, {**tensors, **_dotted(changes)})


def write_tokenizer(folder: Path, tokens: list[str], prefix: str | None = None) -> Path:
    """A fast tokenizer's file, as far as a vocabulary goes."""
    folder.mkdir(parents=True, exist_ok=True)
    model = {"vocab": {token: place for place, token in enumerate(tokens)}}
    settings = {"continuing_subword_prefix": prefix} if prefix else {}
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({"model": {**settings, **model}}, ensure_ascii=False), "utf-8")
    return path


def families(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """(count, width) vectors around six centres."""
    centres = rng.normal(size=(6, width)) * 3
    return centres[np.arange(count) % 6] + rng.normal(size=(count, width))


def _save(folder: Path, tensors: dict[str, object]) -> Path:
    kept = {
        name: np.asarray(array, np.float32) for name, array in tensors.items() if array is not None
    }
    save_file(kept, folder / "model.safetensors")
    return folder


def _dotted(changes: dict[str, object]) -> dict[str, object]:
    return {name.replace("__", "."): array for name, array in changes.items()}


def write_texts(folder: Path, train: int, test: int) -> Path:
    """A dataset's folder: half of the words are good, the others bad."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        labels = rng.integers(2, size=count).tolist()
        rows = [
            {"text": " ".join(rng.choice(WORDS[10 + 30 * y : 40 + 30 * y], 8)), "label": y}
            for y in labels
        ]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder
