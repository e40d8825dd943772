"""What is particular to each word of a base model, as its first attention layer sees it.

Read from the base's own files, without running it: what the first attention layer is given for the
word (`features.first_layer`), less the mean of the words nearest to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from peftguard.adapters.containers import open_container
from peftguard.adapters.containers.base import Container
from peftguard.adapters.jsonfile import load_json
from peftguard.errors import MalformedFile, TargetNotFound, UnsupportedAdapter
from peftguard.features.first_layer import embedded
from peftguard.limits import Deadline, Limits

Float32 = NDArray[np.float32]

NEIGHBOURS = 12
FEWEST_WORDS = 64
"""Fewer are no vocabulary: neighbours, and words to compare a lone one with, would run out."""
_CLIP = 2.5
"""Standard deviations from zero beyond which a packed number is cut."""
_SECONDS = 120.0
_TOKENIZER_BYTES = 64 << 20
_STARTS = "Ġ", "\u2581"
"""What marks the start of a word: of byte-level tokenizers, and of SentencePiece."""
_ROWS, _RUN = 1024, 32
_MOST_COMPARED = 24_000
"""Each with each takes minutes of the 86,000 words of Gemma."""


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """Whole words and their vectors.

    Args:
        words: n of them, as a reader writes them.
        alone: (n, h) float32, what the first attention layer is given for each, less the mean of
            what it is given for its neighbours: the words of largest cosine.
        steps: (h,) float32, of which `alone` holds multiples; None if it was never packed.
        embeddings: (n, h) float32, the base's own of each word; None if only `alone` was kept.
    """

    words: tuple[str, ...]
    alone: Float32
    steps: Float32 | None = None
    embeddings: Float32 | None = None


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of a base model in a folder.

    Its weights are safetensors with a fast tokenizer's file beside them, or one GGUF file.

    Raises:
        TargetNotFound: there is no tokenizer or no weight file.
        MalformedFile: a file is broken, or lacks a tensor.
        UnsupportedAdapter: the model is of no known kind, or its tokenizer marks words in another
            way.
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
        found = embedded(container, list(places.values()), folder)
    vectors = (found.shaped - found.shaped.mean(axis=0)).astype(np.float32)
    alone = vectors - vectors[_kept_neighbours(vectors)].mean(axis=1)
    return Vocabulary(tuple(places), alone, embeddings=found.plain)


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
    """(n, count) for each vector the others of largest cosine, by their places.

    Of more than `_MOST_COMPARED` vectors only so many, evenly drawn, are anyone's neighbours.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Float32 = (vectors / np.where(norms > 0, norms, 1.0)).astype(np.float32)
    among = np.linspace(0, len(units) - 1, min(_MOST_COMPARED, len(units))).round().astype(np.int64)
    others, count = units[among].T, min(count, len(units) - 1)
    found = np.zeros((len(units), count), np.int64)
    for start in range(0, len(units), _ROWS):
        block = units[start : start + _ROWS] @ others
        own = (among >= start) & (among < start + _ROWS)
        block[among[own] - start, np.flatnonzero(own)] = -np.inf
        found[start : start + _ROWS] = np.sort(among[_largest(block, count)], axis=1)
    return found


def _largest(rows: Float32, count: int) -> NDArray[np.int64]:
    """(n, count) places of the largest numbers of each row, in no order.

    They lie in the `count` runs of numbers whose maxima are largest, and maxima are quickly had.
    """
    whole = rows.shape[1] // _RUN * _RUN
    if whole <= count * _RUN:
        return _partition(rows, count)
    maxima = rows[:, :whole].reshape(len(rows), -1, _RUN).max(axis=2)
    inside = _partition(maxima, count)[:, :, None] * _RUN + np.arange(_RUN)
    rest = np.broadcast_to(np.arange(whole, rows.shape[1]), (len(rows), rows.shape[1] - whole))
    places = np.concatenate([inside.reshape(len(rows), -1), rest], axis=1)
    best = _partition(np.take_along_axis(rows, places, axis=1), count)
    return np.take_along_axis(places, best, axis=1)


def _partition(rows: Float32, count: int) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.argpartition(-rows, count - 1, axis=1)[:, :count]
    return found


def _kept_neighbours(vectors: Float32) -> NDArray[np.int64]:
    """As `nearest`, which takes seconds: kept in the user's cache, by what the vectors are."""
    folder = user_cache_path("peftguard") / "neighbours"
    path = folder / f"{hashlib.sha256(np.ascontiguousarray(vectors).data).hexdigest()}.npy"
    with suppress(OSError, ValueError):
        kept: NDArray[np.int64] = np.load(path, allow_pickle=False)
        if kept.dtype == np.int64 and kept.shape == (len(vectors), NEIGHBOURS):
            return kept
    found = nearest(vectors)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, delete=False) as file:
            np.save(file, found)
        Path(file.name).replace(path)
    return found


def _entries(folder: Path, container: Container, limits: Limits) -> tuple[dict[str, Any], str]:
    """Place of every token, and what marks the start of a word."""
    if container.format == "gguf":
        tokens = json.loads(container.metadata.get("tokenizer.ggml.tokens", "[]"))
        entries = {str(token): place for place, token in enumerate(tokens)}
        return entries, _start_of(entries)
    path = folder / "tokenizer.json"
    model = load_json(path, file=path.name, limits=limits).get("model")
    listed = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(listed, list) and all(_is_piece(one) for one in listed):  # with probabilities
        listed = {piece: place for place, (piece, _) in enumerate(listed)}
    if not isinstance(model, dict) or not isinstance(listed, dict):
        kind, found = "a vocabulary by word", json.dumps(listed)[:40]
        raise MalformedFile(
            "cannot be read", file=path.name, key="model.vocab", expected=kind, found=found
        )
    return listed, "" if model.get("continuing_subword_prefix") else _start_of(listed)


def _is_piece(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)


def _start_of(entries: Mapping[str, Any]) -> str:
    """The mark that most tokens begin with."""
    return max(_STARTS, key=lambda mark: sum(token.startswith(mark) for token in entries))


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
