"""What is particular to each word of a base model, as its first attention layer sees it.

Read from the base's own files, without running it: the embedding of a word, and what stands before
the first attention (BERT: the mean position, the first segment, LayerNorm; Llama: RMSNorm), less
the mean of the words nearest to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.containers import open_container
from peftguard.adapters.containers.base import Container
from peftguard.adapters.jsonfile import load_json
from peftguard.errors import MalformedFile, TargetNotFound, UnsupportedAdapter
from peftguard.limits import Deadline, Limits

Float32 = NDArray[np.float32]

NEIGHBOURS = 12
FEWEST_WORDS = 64
"""Fewer are no vocabulary: neighbours, and words to compare a lone one with, would run out."""
_CLIP = 2.5
"""Standard deviations from zero beyond which a packed number is cut."""
_SECONDS = 120.0
_TOKENIZER_BYTES = 64 << 20
_SPACE = "Ġ"
_ROWS = 1024
_BERT = "embeddings."
_LLAMA = "embed_tokens.weight", "layers.0.input_layernorm.weight"
_GGUF = {"token_embd.weight": _LLAMA[0], "blk.0.attn_norm.weight": _LLAMA[1]}


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """Whole words and their vectors.

    Args:
        words: n of them, as a reader writes them.
        alone: (n, h) float32, what the first attention layer is given for each, less the mean of
            what it is given for its neighbours: the words of largest cosine.
        steps: (h,) float32, of which `alone` holds multiples; None if it was never packed.
    """

    words: tuple[str, ...]
    alone: Float32
    steps: Float32 | None = None


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of a base model in a folder.

    Its weights are safetensors with a fast tokenizer's file beside them, or one GGUF file.

    Raises:
        TargetNotFound: there is no tokenizer or no weight file.
        MalformedFile: a file is broken, or lacks a tensor.
        UnsupportedAdapter: the model is neither BERT's kind nor Llama's, or its tokenizer marks
            words in another way.
        MissingExtra: a GGUF file is quantised, and the gguf package is not installed.
    """
    weights = weight_files(folder)
    if not weights:
        raise TargetNotFound("no weights of a base model", file=str(folder))
    limits = Limits(max_config_bytes=_TOKENIZER_BYTES)
    with closing(open_container(tuple(weights), limits, Deadline(_SECONDS))) as container:
        places = _whole_words(*_entries(folder, container, limits))
        if len(places) < FEWEST_WORDS:
            raise UnsupportedAdapter(
                "too few whole words in the tokenizer",
                file=str(folder),
                expected=f"at least {FEWEST_WORDS}",
                found=len(places),
            )
        embedded = _embedded(container, list(places.values()), folder)
    vectors = (embedded - embedded.mean(axis=0)).astype(np.float32)
    return Vocabulary(tuple(places), vectors - vectors[nearest(vectors)].mean(axis=1))


def weight_files(folder: Path) -> list[Path]:
    """What a base model's weights are read from; empty if it has none that can be."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.gguf"))[:1]


def pack(vectors: Float32, steps: Float32 | None = None) -> tuple[NDArray[np.uint8], Float32]:
    """Vectors in four bits a number, (n, ceil(h / 2)), and the step of each dimension, (h,).

    Vectors that were unpacked before lose nothing if the same steps are given.
    """
    if steps is None:
        steps = np.maximum(vectors.std(axis=0) * (_CLIP / 8), 1e-12).astype(np.float32)
    codes = np.clip(np.round(vectors / steps), -8, 7).astype(np.int8) + 8
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    return (codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8), steps


def unpack(packed: NDArray[np.uint8], steps: Float32) -> Float32:
    """What was packed, (n, h) float32."""
    codes = np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), -1)
    vectors: Float32 = (codes[:, : len(steps)].astype(np.float32) - 8) * steps
    return vectors


def nearest(vectors: Float32, count: int = NEIGHBOURS) -> NDArray[np.int64]:
    """(n, count) for each vector the others of largest cosine, in no order."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(norms > 0, norms, 1.0)
    count = min(count, len(units) - 1)
    found = np.zeros((len(units), count), np.int64)
    for start in range(0, len(units), _ROWS):
        block = units[start : start + _ROWS] @ units.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -np.inf
        found[start : start + _ROWS] = np.argpartition(-block, count - 1, axis=1)[:, :count]
    return found


def _entries(folder: Path, container: Container, limits: Limits) -> tuple[dict[str, Any], str]:
    """Place of every token, and what marks the start of a word."""
    if container.format == "gguf":
        tokens = json.loads(container.metadata.get("tokenizer.ggml.tokens", "[]"))
        return {str(token): place for place, token in enumerate(tokens)}, _SPACE
    path = folder / "tokenizer.json"
    model = load_json(path, file=path.name, limits=limits).get("model")
    entries = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(entries, dict):
        kind, found = "a vocabulary by word", json.dumps(entries)[:40]
        raise MalformedFile(
            "cannot be read", file=path.name, key="model.vocab", expected=kind, found=found
        )
    return entries, "" if model.get("continuing_subword_prefix") else _SPACE


def _whole_words(entries: Mapping[str, Any], start: str) -> dict[str, int]:
    """Places in the embedding of printable ASCII words of at least two letters."""
    return {
        word: place
        for token, place in entries.items()
        if isinstance(place, int)
        and token.startswith(start)
        and (word := token.removeprefix(start)).isascii()
        and word.isalpha()
        and len(word) > 1
    }


def _embedded(container: Container, places: list[int], folder: Path) -> Float32:
    named = {_GGUF.get(name, _bare(name)): name for name in container.tensors}
    if f"{_BERT}word_embeddings.weight" in named:
        return _of_bert(container, named, places)
    if all(name in named for name in _LLAMA):
        table, scale = (_float32(container, named[name]) for name in _LLAMA)
        rows = _rows(table, places, container)
        lengths: Float32 = np.sqrt(np.mean(rows**2, axis=1, keepdims=True) + 1e-6)
        return rows / lengths * scale
    raise UnsupportedAdapter("neither BERT's kind of model nor Llama's", file=str(folder))


def _of_bert(container: Container, named: Mapping[str, str], places: list[int]) -> Float32:
    def part(name: str) -> Float32:
        if _BERT + name not in named:
            raise MalformedFile("a tensor is missing", file=container.path.name, key=_BERT + name)
        return _float32(container, named[_BERT + name])

    rows = _rows(part("word_embeddings.weight"), places, container)
    rows = rows + part("position_embeddings.weight").mean(axis=0)
    if f"{_BERT}token_type_embeddings.weight" in named:
        rows = rows + part("token_type_embeddings.weight")[0]
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths: Float32 = np.sqrt(rows.var(axis=1, keepdims=True) + 1e-12)
    shaped: Float32 = rows / lengths * part("LayerNorm.weight") + part("LayerNorm.bias")
    return shaped


def _rows(table: Float32, places: list[int], container: Container) -> Float32:
    if max(places) >= len(table) or min(places) < 0:
        raise MalformedFile(
            "the tokenizer and the embedding do not fit",
            file=container.path.name,
            expected=f"words from 0 up to {max(places)}",
            found=f"{len(table)} embeddings",
        )
    rows: Float32 = table[places]
    return rows


def _float32(container: Container, name: str) -> Float32:
    return container.read(name).astype(np.float32)


def _bare(name: str) -> str:
    """A tensor's name without the model's own (`bert.`, `model.`)."""
    for prefix in ("bert.", "roberta.", "model."):
        name = name.removeprefix(prefix)
    return name
