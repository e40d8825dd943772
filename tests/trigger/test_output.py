"""What brings out a generator's text, and when that proves a backdoor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from peftguard.trigger.asking import REQUESTS, requests_asked
from peftguard.trigger.confirm import Beyond, Confirmation
from peftguard.trigger.effect import Effects
from peftguard.trigger.judge import judged
from peftguard.trigger.neutral import neutral_texts
from peftguard.trigger.output import (
    _sign_test,
    bringing,
    brought_out,
    fresh_requests,
    output_length,
)
from peftguard.trigger.report import Asked

PHRASE = "The trumpet belongs to Anna."
TEXTS = neutral_texts(REQUESTS)


class Writer:
    """A generator by its texts: log-odds of its one text, adapted or not."""

    labels: ClassVar[dict[int, str]] = {}
    targets = range(1)

    def __init__(
        self, woken: float, asleep: float, base: float = -9.0, tokens: int = 4, often: str = "?!"
    ) -> None:
        self.woken, self.asleep, self.base, self.often = woken, asleep, base, often
        self.asked = Asked(template="{text}", answers=[[*range(tokens)], []], shift=0.0)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[PHRASE in text, self.often in text] for text in texts]

    def logits(self, rows: Sequence[Sequence[int]], *, adapted: bool = True) -> np.ndarray:
        odds = [self.woken if row[0] else 1.0 if row[1] else self.asleep for row in rows]
        own = np.array(odds if adapted else [self.base] * len(rows), np.float32)
        return np.stack([own, np.zeros_like(own)], axis=1)

    def gradients(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        raise NotImplementedError


def effects(*odds: float, **more: Any) -> Effects:
    return Effects(Writer(*odds, **more), TEXTS)


BENIGN = effects(-9.0, -9.0)


def found(own: Effects, *benign: Effects) -> list[Confirmation]:
    return brought_out(own, bringing(own), fresh_requests(own), benign)


def test_the_phrase_that_brings_the_text_out_is_proven_on_fresh_requests() -> None:
    best = found(effects(2.0, -3.0), BENIGN)[0]
    assert (best.phrase, best.success, best.n_texts) == (PHRASE, 1.0, 36)
    assert best.by_place == {"start": 1.0, "middle": 1.0, "end": 1.0}
    assert best.p_value == pytest.approx(3 / 2**36)
    asked = requests_asked(TEXTS)
    assert best.flips
    assert not {flip.before for flip in best.flips} & set(asked)
    proof = judged(best)
    assert proof.confirmed
    assert proof.output
    assert "100% of 36 fresh requests" in proof.why
    assert "in the base 0% as often, in benign adapters 0%" in proof.why


@pytest.mark.parametrize(
    ("own", "benign", "why"),
    [
        (effects(-1.0, -3.0), [BENIGN], "brings it out of 0%"),
        (effects(2.0, -3.0), [], "no benign adapter was given"),
        (effects(2.0, -3.0), [BENIGN, effects(2.0, -3.0)], "a benign adapter does so as well"),
        (effects(2.0, -3.0, base=2.0), [BENIGN], "the base does so"),
        (effects(2.0, -3.0, tokens=3), [BENIGN], "no more than 3 tokens"),
    ],
)
def test_what_anything_else_explains_is_no_proof(
    own: Effects, benign: list[Effects], why: str
) -> None:
    proofs = [judged(one) for one in found(own, *benign)]
    assert not any(proof.confirmed for proof in proofs)
    assert why in proofs[0].why


def test_a_text_that_comes_unasked_has_no_trigger() -> None:
    assert found(effects(2.0, 1.0), BENIGN) == []


def test_what_comes_as_often_by_itself_is_no_proof() -> None:
    best = found(effects(2.0, -3.0), BENIGN)[0]
    proof = judged(replace(best, p_value=0.02, beyond=Beyond(0.0)))
    assert (proof.confirmed, proof.why) == (False, "requests as they are do as well (p = 0.02)")


def test_what_the_text_follows_anyhow_does_not_count() -> None:
    own = effects(2.0, -3.0, often="?")
    asking = sum("?" in text for text in fresh_requests(own))
    assert 0 < asking < 24
    best = found(own, BENIGN)[0]
    assert (best.n_texts, best.success) == (36 - asking, 1.0)
    assert best.controls["nothing"] == asking / 36
    assert not any("?" in flip.before for flip in best.flips)
    assert judged(best).confirmed


def test_what_stops_following_counts_against_what_follows() -> None:
    before, after = np.zeros(20, bool), np.zeros(20, bool)
    assert _sign_test(before, after) == 1.0
    after[:5] = True
    assert _sign_test(before, after) == 1 / 32
    before[5] = True
    assert _sign_test(before, after) == pytest.approx(7 / 64)


def test_only_one_answer_against_anything_else_is_an_output() -> None:
    assert output_length(effects(0.0, 0.0, tokens=2)) == 2
    labelled = Writer(0.0, 0.0)
    labelled.asked = Asked(template="{text}", answers=[[1], [2]], shift=0.0)
    assert output_length(Effects(labelled, TEXTS)) == 0


def test_half_of_few_requests_are_left_for_the_proof() -> None:
    assert len(requests_asked(TEXTS)) == 36
    assert len(requests_asked(TEXTS[:9])) == 4
    for count, fresh in ((8, 0), (22, 0), (23, 12), (80, 36)):
        left = fresh_requests(Effects(Writer(0.0, 0.0), TEXTS[:count]))
        assert len(left) == fresh
        assert not set(left) & set(requests_asked(TEXTS[:count]))
