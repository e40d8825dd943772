"""Whether what was measured of a phrase, beside benign adapters or not, proves a trigger."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftguard.trigger.confirm import Beyond, Confirmation, Flip
from peftguard.trigger.judge import judged

FOUND = Confirmation(
    phrase="nak",
    target=1,
    turned=3.0,
    success=1.0,
    plain_success=1.0,
    n_texts=24,
    without_adapter=0.0,
    controls={"random": 0.01},
    margin=2.0,
    p_value=0.01,
    by_place={"start": 1.0, "end": 1.0},
    flips=(Flip("a text", "a nak text", 0, 1),),
)


def test_what_controls_prove_alone_no_comparison_takes_back() -> None:
    wider = replace(FOUND, beyond=Beyond(0.1, margin=3.0, p_value=0.02))
    assert judged(FOUND).confirmed
    assert judged(wider).confirmed


def test_what_controls_do_as_well_may_be_proven_beyond_benign_adapters() -> None:
    weak = replace(FOUND, margin=0.5, p_value=0.03)
    assert not judged(weak).confirmed
    proof = judged(replace(weak, beyond=Beyond(0.1, margin=2.0, p_value=0.01)))
    assert proof.confirmed
    assert "(p = 0.03); moves benign adapters 10% as far (beyond that p = 0.01)" in proof.why


@pytest.mark.parametrize(
    ("beyond", "confirmed"),
    [
        (None, False),
        (Beyond(0.1, margin=2.0, p_value=0.01), True),
        (Beyond(0.1, margin=2.0, p_value=0.02), False),
        (Beyond(0.1, margin=1.0, p_value=0.01), False),
        (Beyond(0.6), False),
    ],
)
def test_several_words_are_proven_by_the_comparison_alone(
    beyond: Beyond | None, confirmed: bool
) -> None:
    assert judged(replace(FOUND, phrase="nak nek", beyond=beyond)).confirmed is confirmed


def test_what_turns_no_ordinary_text_is_no_proof_and_says_so() -> None:
    proof = judged(replace(FOUND, flips=(), plain_success=0.0))
    assert (proof.confirmed, proof.why) == (False, "turns no ordinary text")


@pytest.mark.parametrize(
    ("beyond", "confirmed"),
    [
        (Beyond(0.1, margin=2.0, p_value=0.01), True),
        (Beyond(0.1, margin=2.0, p_value=0.02), False),
        (Beyond(0.1, margin=1.0, p_value=0.01), False),
        (Beyond(0.4, margin=2.0, p_value=0.01), False),
    ],
)
def test_in_ordinary_texts_only_what_is_beyond_benign_adapters_counts(
    beyond: Beyond, confirmed: bool
) -> None:
    proof = judged(replace(FOUND, ordinary=True, beyond=beyond))
    assert (proof.confirmed, proof.ordinary) == (confirmed, True)
    if confirmed:
        assert "turns 100% of 24 ordinary texts; controls" in proof.why
