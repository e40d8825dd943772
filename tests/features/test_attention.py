"""A word that an update reads stands out, whatever the factors and the size of the update."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftguard.features.attention import ROLES, first_attention, standing_alone
from peftguard.features.vocabulary import Vocabulary
from peftguard.features.weights import Factors, Weights

WIDTH, COUNT = 24, 60
NAMES = {
    "bert": "base_model.encoder.layer.{}.attention.self.{}",
    "llama": "model.layers.{}.self_attn.{}_proj",
}
LETTERS = {
    "bert": {"q": "query", "k": "key", "v": "value"},
    "llama": {"q": "q", "k": "k", "v": "v"},
}

kinds = pytest.mark.parametrize("kind", NAMES)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    rng = np.random.default_rng(0)
    words = tuple(f"word{place}" for place in range(COUNT))
    return Vocabulary(words, rng.normal(size=(COUNT, WIDTH)).astype(np.float32))


def factors(rng: np.random.Generator, rank: int = 3, reads: np.ndarray | None = None) -> Factors:
    B, A = rng.normal(size=(10, rank)), rng.normal(size=(rank, WIDTH)) / 9
    if reads is not None:
        B, A = np.hstack([B, 3 * np.ones((10, 1))]), np.vstack([A, reads])
    return Factors(B.astype(np.float32), A.astype(np.float32))


def named(kind: str, layer: int, role: str) -> str:
    return NAMES[kind].format(layer, LETTERS[kind][role])


@kinds
@pytest.mark.parametrize("word", [0, 17, 59])
def test_the_word_that_is_read(vocabulary: Vocabulary, kind: str, word: int) -> None:
    rng = np.random.default_rng(word)
    modules = {named(kind, layer, role): factors(rng) for layer in (0, 1) for role in ROLES}
    plain = standing_alone(Weights("plain", modules), vocabulary)
    modules[named(kind, 0, "k")] = factors(rng, reads=vocabulary.alone[word])
    found = standing_alone(Weights("planted", modules), vocabulary)
    assert found.shape == (len(ROLES), COUNT)
    assert found.dtype == np.float32
    assert found[1].argmax() == word
    assert found[1, word] > np.sort(found[1])[-2] + 0.3
    np.testing.assert_array_equal(found[[0, 2]], plain[[0, 2]])


def test_as_dense(vocabulary: Vocabulary) -> None:
    one = factors(np.random.default_rng(1))
    changes = vocabulary.alone @ (one.B.astype(float) @ one.A).T
    lengths = np.log(np.linalg.norm(changes, axis=1))
    spread = np.subtract(*np.percentile(lengths, (75, 25))) / 1.349
    adapter = Weights("one", {named("llama", 0, "v"): one})
    found = standing_alone(adapter, vocabulary)
    np.testing.assert_allclose(found[2], (lengths - np.median(lengths)) / spread, atol=1e-3)
    assert not found[:2].any()


@settings(deadline=None, max_examples=25)
@given(seed=seeds, rank=st.integers(1, 6), size=st.floats(1e-4, 1e4), stretch=st.floats(0.1, 10))
def test_other_factors_and_sizes(seed: int, rank: int, size: float, stretch: float) -> None:
    rng = np.random.default_rng(seed)
    words = Vocabulary(("x",) * 40, rng.normal(size=(40, WIDTH)).astype(np.float32))
    one = factors(rng, rank)
    mix = np.linalg.qr(rng.normal(size=(rank, rank)))[0] * np.geomspace(1, stretch, rank)
    B, A = size * one.B @ np.linalg.inv(mix), mix @ one.A
    other = Factors(B.astype(np.float32), A.astype(np.float32))
    found, expected = (
        standing_alone(Weights("one", {"layers.0.q_proj": own}), words) for own in (other, one)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=5e-3)


def test_a_rank_that_adds_nothing(vocabulary: Vocabulary) -> None:
    one = factors(np.random.default_rng(2))
    B = np.hstack([one.B, np.zeros((10, 2), np.float32)])
    A = np.vstack([one.A, np.ones((2, WIDTH), np.float32)])
    found, expected = (
        standing_alone(Weights("one", {"layers.0.q_proj": own}), vocabulary)
        for own in (Factors(B, A), one)
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)


@kinds
def test_first_layer_untouched(vocabulary: Vocabulary, kind: str) -> None:
    rng = np.random.default_rng(3)
    later = {named(kind, layer, "q"): factors(rng) for layer in (10, 1, 2)}
    assert first_attention(Weights("later", later), WIDTH) == {}
    assert not standing_alone(Weights("later", later), vocabulary).any()
    assert not standing_alone(Weights("nothing", {}), vocabulary).any()


@pytest.mark.parametrize(
    "own",
    [
        Factors(np.zeros((10, 2), np.float32), np.ones((2, WIDTH), np.float32)),
        Factors(np.zeros((10, 0), np.float32), np.zeros((0, WIDTH), np.float32)),
        Factors(np.ones((10, 2), np.float32), np.ones((2, WIDTH - 1), np.float32)),
    ],
    ids=["untrained", "rank 0", "other width"],
)
def test_updates_that_read_nothing(vocabulary: Vocabulary, own: Factors) -> None:
    assert not standing_alone(Weights("none", {"layers.0.q_proj": own}), vocabulary).any()


def test_only_attention_of_the_first_layer(vocabulary: Vocabulary) -> None:
    rng = np.random.default_rng(4)
    modules = {
        "encoder.layer.1.attention.self.query": factors(rng),
        "encoder.layer.0.output.dense": factors(rng),
        "encoder.layer.0.attention.output.dense": factors(rng),
        "encoder.layer.0.attention.self.value": factors(rng),
        "pooler.dense": factors(rng),
        "classifier.query": factors(rng),
    }
    found = first_attention(Weights("several", modules), WIDTH)
    assert found == {"v": modules["encoder.layer.0.attention.self.value"]}


@pytest.mark.parametrize(
    "module", ["transformer.h.0.attn.c_attn", "gpt_neox.layers.0.attention.query_key_value"]
)
def test_one_module_for_all_three(vocabulary: Vocabulary, module: str) -> None:
    own = factors(np.random.default_rng(5), reads=vocabulary.alone[17])
    adapter = Weights("fused", {module: own})
    assert first_attention(adapter, WIDTH) == dict.fromkeys(ROLES, own)
    assert (standing_alone(adapter, vocabulary).argmax(axis=1) == 17).all()


def test_of_encoder_and_decoder_the_encoder(vocabulary: Vocabulary) -> None:
    rng = np.random.default_rng(6)
    modules = {
        f"{part}.block.0.layer.0.SelfAttention.q": factors(rng) for part in ("decoder", "encoder")
    }
    found = first_attention(Weights("both", modules), WIDTH)
    assert found == {"q": modules["encoder.block.0.layer.0.SelfAttention.q"]}
