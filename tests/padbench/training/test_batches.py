from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftguard.errors import SettingsError
from peftguard.padbench.examples import Example

from .conftest import WORDS, rows, tokenizer

pytest.importorskip("torch")

from peftguard.padbench.training.batches import IGNORED, encode, pad, schedule


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=200),
    st.integers(1, 8),
    st.integers(0, 2**31),
)
def test_rows_are_used_equally_often(lengths: list[int], batch_size: int, seed: int) -> None:
    order = schedule(np.array(lengths), batch_size, 64, seed)
    assert order.shape == (64, batch_size)
    counts = np.bincount(order.ravel(), minlength=len(lengths))
    mean = order.size / len(lengths)
    # Buckets differ by one row, streams by one pass.
    assert counts.min() >= np.floor(mean * (1 - 2 / len(lengths) ** 0.5)) - 2
    assert counts.sum() == 64 * batch_size


def test_batches_of_different_adapters_are_equally_long_at_each_step() -> None:
    rng = np.random.default_rng(0)
    members = [rng.integers(5, 60, size) for size in (600, 1100, 2000)]
    longest = [
        lengths[schedule(lengths, 16, 100, seed)].max(axis=1)
        for seed, lengths in enumerate(members)
    ]
    waste = 1 - np.mean(longest, axis=0) / np.max(longest, axis=0)
    assert waste.mean() < 0.05


def test_the_seed_decides_and_nothing_else() -> None:
    lengths = np.arange(100) % 17
    assert np.array_equal(schedule(lengths, 4, 20, 3), schedule(lengths, 4, 20, 3))
    assert not np.array_equal(schedule(lengths, 4, 20, 3), schedule(lengths, 4, 20, 4))


def test_only_completions_count_for_a_causal_model() -> None:
    row = Example("0", "w1 w2 w3", completion="w4 w5")
    encoded = encode([row], tokenizer(), 16, causal=True)
    words = {word: 5 + number for number, word in enumerate(WORDS)}
    completion = [words["w4"], words["w5"], 4]
    assert encoded.tokens == [[2, words["w1"], words["w2"], words["w3"], *completion]]
    assert encoded.labels == [[IGNORED] * 4 + completion]


@pytest.mark.parametrize("causal", [True, False])
def test_no_row_is_longer_than_allowed(causal: bool) -> None:
    encoded = encode(rows(50, 0), tokenizer(), 5, causal=causal)
    assert encoded.lengths.max() == 5
    if causal:
        assert all(label[-1] != IGNORED for label in encoded.labels)


def test_a_long_prompt_keeps_its_head_and_its_cue() -> None:
    row = Example("0", " ".join(WORDS[:30]), completion="w38 w39")
    words = [5 + number for number in range(30)]
    encoded = encode([row], tokenizer(), 20, causal=True)
    # 20 tokens: the start, 8 words, the last 8, and a completion of 3.
    assert encoded.tokens == [[2, *words[:8], *words[-8:], 43, 44, 4]]
    assert encoded.labels == [[IGNORED] * 17 + [43, 44, 4]]


def test_a_prompt_that_just_fits_is_whole() -> None:
    row = Example("0", " ".join(WORDS[:16]), completion="w38 w39")
    encoded = encode([row], tokenizer(), 20, causal=True)
    assert encoded.tokens == [[2, *range(5, 21), 43, 44, 4]]


def test_a_long_completion_leaves_half_to_the_prompt() -> None:
    row = Example("0", " ".join(WORDS[:30]), completion=" ".join(WORDS))
    encoded = encode([row], tokenizer(), 20, causal=True)
    assert encoded.tokens == [[2, 5, 6, 7, 8, *range(30, 35), *range(5, 15)]]
    assert encoded.labels == [[IGNORED] * 10 + list(range(5, 15))]


@given(st.integers(2, 24), st.integers(1, 40), st.integers(1, 40))
def test_a_cut_row_is_as_long_as_allowed(max_tokens: int, prompt: int, completion: int) -> None:
    row = Example("0", " ".join(WORDS[:prompt]), completion=" ".join(WORDS[:completion]))
    encoded = encode([row], tokenizer(), max_tokens, causal=True)
    written = min(completion + 1, max_tokens // 2)
    asked = min(prompt + 1, max_tokens - written)
    assert encoded.lengths.tolist() == [asked + written]
    assert encoded.tokens[0][0] == 2
    assert encoded.labels[0].count(IGNORED) == asked
    if asked > 1:
        assert encoded.tokens[0][asked - 1] == 5 + prompt - 1


def test_pads_and_masks() -> None:
    ids, real = pad([[1, 2, 3], [4]])
    assert ids.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert real is not None
    assert real.tolist() == [[True, True, True], [True, False, False]]
    assert pad([[1, 2], [3, 4]])[1] is None


@pytest.mark.parametrize(
    ("data", "causal", "problem"),
    [
        ([], False, "no rows"),
        ([Example("0", "w1")], False, "no label"),
        ([Example("0", "w1", 1)], True, "no completion"),
    ],
)
def test_says_what_a_row_lacks(data: list[Example], causal: bool, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        encode(data, tokenizer(), 8, causal=causal)
