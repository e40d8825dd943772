"""What the first attention layer is given for a word, against the models' own layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tests.toy_base import PIECES, WORDS, families, write_bert, write_llama, write_tokenizer

from peftguard.errors import InputError, MalformedFile, TargetNotFound, UnsupportedAdapter
from peftguard.features import vocabulary
from peftguard.features.vocabulary import NEIGHBOURS, nearest, pack, read_vocabulary, unpack


def neighbours(vectors: np.ndarray, count: int = NEIGHBOURS) -> list[set[int]]:
    """By comparing each with each."""
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    return [set(np.argsort(-row)[:count].tolist()) for row in cosines]


def alone(shaped: np.ndarray) -> np.ndarray:
    """Each less the mean of its neighbours."""
    centred = shaped - shaped.mean(axis=0)
    near = neighbours(centred)
    return np.array(
        [v - centred[list(own)].mean(axis=0) for v, own in zip(centred, near, strict=True)]
    )


def test_bert_as_its_own_layer(tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from transformers.models.bert.modeling_bert import BertEmbeddings

    stored = load_file(write_bert(tmp_path) / "model.safetensors")
    own = {name.removeprefix("embeddings."): torch.tensor(t) for name, t in stored.items()}
    positions = own["position_embeddings.weight"]
    own["position_embeddings.weight"] = positions.mean(dim=0).expand_as(positions)
    first = len(PIECES["wordpiece"])
    config = transformers.BertConfig(
        vocab_size=first + len(WORDS), hidden_size=16, max_position_embeddings=9
    )
    layer = BertEmbeddings(config).eval()
    layer.load_state_dict(own, strict=False)
    with torch.no_grad():
        shaped = layer(torch.arange(first, first + len(WORDS))[:, None])[:, 0].numpy()
    found = read_vocabulary(tmp_path)
    assert found.words == tuple(WORDS)
    assert found.alone.dtype == np.float32
    np.testing.assert_allclose(found.alone, alone(shaped), atol=1e-4)


def test_llama_as_its_own_layer(tmp_path: Path) -> None:
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    stored = load_file(write_llama(tmp_path) / "model.safetensors")
    norm = LlamaRMSNorm(16, eps=1e-6)
    scale = torch.tensor(stored["model.layers.0.input_layernorm.weight"])
    norm.load_state_dict({"weight": scale})
    rows = torch.tensor(stored["model.embed_tokens.weight"])[len(PIECES["bpe"]) :]
    with torch.no_grad():
        shaped = norm(rows).numpy()
    found = read_vocabulary(tmp_path)
    assert found.words == tuple(WORDS)
    np.testing.assert_allclose(found.alone, alone(shaped), atol=1e-4)


@pytest.mark.parametrize("prefix", ["bert.", "roberta."])
def test_names_under_a_head(tmp_path: Path, prefix: str) -> None:
    from safetensors.numpy import save_file

    expected = read_vocabulary(write_bert(tmp_path)).alone
    path = tmp_path / "model.safetensors"
    save_file({prefix + name: array for name, array in load_file(path).items()}, path)
    np.testing.assert_array_equal(read_vocabulary(tmp_path).alone, expected)


def test_without_segments(tmp_path: Path) -> None:
    name = "embeddings__token_type_embeddings__weight"
    without = read_vocabulary(write_bert(tmp_path / "none", **{name: None}))
    zero = read_vocabulary(write_bert(tmp_path / "zero", **{name: np.zeros((2, 16))}))
    np.testing.assert_allclose(without.alone, zero.alone, atol=1e-6)


@pytest.mark.parametrize("count", [1, 5, 12])
def test_nearest_against_all_pairs(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    vectors = families(np.random.default_rng(0), 70, 9).astype(np.float32)
    expected = neighbours(vectors, count)
    for rows, run in ((16, 32), (35, 3), (1024, 4), (1024, 1)):
        monkeypatch.setattr(vocabulary, "_ROWS", rows)
        monkeypatch.setattr(vocabulary, "_RUN", run)
        found = nearest(vectors, count)
        assert found.shape == (70, count)
        assert [set(row) for row in found.tolist()] == expected


def test_neighbours_are_kept_by_what_the_vectors_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_bert(tmp_path / "base")
    first = read_vocabulary(folder).alone
    (kept,) = (tmp_path / "cache").rglob("*.npy")
    monkeypatch.setattr(vocabulary, "nearest", lambda *_: pytest.fail("asked for again"))
    np.testing.assert_array_equal(read_vocabulary(folder).alone, first)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept.write_bytes(b"broken")
    np.testing.assert_array_equal(read_vocabulary(folder).alone, first)
    assert kept.read_bytes() != b"broken"


def test_of_many_only_some_are_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = families(np.random.default_rng(0), 90, 9).astype(np.float32)
    monkeypatch.setattr(vocabulary, "_MOST_COMPARED", 30)
    monkeypatch.setattr(vocabulary, "_ROWS", 16)
    some = np.linspace(0, 89, 30).round().astype(int)
    found = nearest(vectors, 5)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for place, row in enumerate(found.tolist()):
        others = [one for one in some.tolist() if one != place]
        assert set(row) == set(sorted(others, key=lambda one: -units[place] @ units[one])[:5])


def test_nearest_of_few_and_of_nothing() -> None:
    few = nearest(np.eye(4, dtype=np.float32))
    assert [set(row) for row in few.tolist()] == [{0, 1, 2, 3} - {i} for i in range(4)]
    assert nearest(np.zeros((3, 2), np.float32), 2).shape == (3, 2)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 30), width=st.integers(1, 9))
def test_packing_errs_by_half_a_step(seed: int, count: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=(count, width)) * rng.uniform(0.01, 9, width)).astype(np.float32)
    packed, steps = pack(vectors)
    assert (packed.dtype, packed.shape) == (np.uint8, (count, (width + 1) // 2))
    assert (steps.dtype, steps.shape) == (np.float32, (width,))
    found = unpack(packed, steps)
    assert found.shape == vectors.shape
    assert (np.abs(found - vectors.clip(-8 * steps, 7 * steps)) <= 0.501 * steps).all()
    np.testing.assert_array_equal(pack(found, steps)[0], packed)


def test_packing_what_does_not_vary() -> None:
    vectors = np.zeros((5, 3), np.float32)
    np.testing.assert_array_equal(unpack(*pack(vectors)), vectors)


def drop_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def break_json(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": ')


def break_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 40)


def list_of_pieces(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": [["word"]]}}))


def model_of_text(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(json.dumps({"model": "text"}))


def more_words(folder: Path) -> None:
    write_tokenizer(folder, PIECES["wordpiece"] + WORDS + ["extra"], prefix="##")


def places_below_zero(folder: Path) -> None:
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text("utf-8"))
    settings["model"]["vocab"][WORDS[3]] = -2
    path.write_text(json.dumps(settings))


def few_words(folder: Path) -> None:
    write_tokenizer(folder, WORDS[:5], prefix="##")


def other_marks(folder: Path) -> None:
    write_tokenizer(folder, [f"_{word}" for word in WORDS])


def other_architecture(folder: Path) -> None:
    write_bert(folder, embeddings__word_embeddings__weight=None)


def no_norm(folder: Path) -> None:
    write_bert(folder, embeddings__LayerNorm__weight=None)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (drop_tokenizer, TargetNotFound, "tokenizer.json"),
        (drop_weights, TargetNotFound, "no weights of a base model"),
        (break_json, MalformedFile, r"tokenizer\.json: not JSON"),
        (break_weights, InputError, r"model\.safetensors"),
        (list_of_pieces, MalformedFile, r"model\.vocab: .*by word"),
        (model_of_text, MalformedFile, r"model\.vocab"),
        (more_words, MalformedFile, "up to 83; found 83 embeddings"),
        (places_below_zero, MalformedFile, "do not fit"),
        (few_words, UnsupportedAdapter, "at least 64; found 5"),
        (other_marks, UnsupportedAdapter, "at least 64; found 0"),
        (other_architecture, UnsupportedAdapter, "no kind of base model"),
        (no_norm, MalformedFile, r"embeddings\.LayerNorm\.weight: .*missing"),
    ],
)
def test_one_clear_error(
    tmp_path: Path, spoil: Callable[[Path], Any], error: type[Exception], message: str
) -> None:
    spoil(write_bert(tmp_path))
    with pytest.raises(error, match=message):
        read_vocabulary(tmp_path)


def test_llama_in_one_gguf_file(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    safe = write_llama(tmp_path / "safe")
    stored = load_file(safe / "model.safetensors")
    (tmp_path / "gguf").mkdir()
    writer = gguf.GGUFWriter(tmp_path / "gguf" / "model.gguf", "llama")
    writer.add_token_list(PIECES["bpe"] + [f"Ġ{word}" for word in WORDS])
    writer.add_tensor("token_embd.weight", stored["model.embed_tokens.weight"])
    writer.add_tensor("blk.0.attn_norm.weight", stored["model.layers.0.input_layernorm.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found, expected = read_vocabulary(tmp_path / "gguf"), read_vocabulary(safe)
    assert found.words == expected.words
    np.testing.assert_array_equal(found.alone, expected.alone)
