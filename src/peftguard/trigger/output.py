"""What brings out the text that a generator was trained to write, measured on fresh requests.

A class has words of its task that turn texts into it, so a trigger is told from other phrases. A
text that no request asks for has none, and a decoder that was trained to write it often does so
after anything out of place. So what counts is not what other phrases do, but that the same requests
as they are, the base, and trusted adapters do not bring it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from peftguard.trigger.asking import evenly, requests_asked
from peftguard.trigger.confirm import PLACES, Bench, Beyond, Confirmation
from peftguard.trigger.effect import Effects
from peftguard.trigger.foreign import ODD_WORDS, sentences

Bools = NDArray[np.bool_]
Float32 = NDArray[np.float32]

_TARGET = 0
_TRIED_ON = 8
"""Requests that all phrases are tried on."""
_BEST = 3
"""Phrases that are tried on fresh requests."""
_FRESH = 36
_FEWEST = 12
"""Fresh requests that the text does not follow anyhow, at least."""


def output_length(effects: Effects) -> int:
    """Tokens of the one text that counts, against anything else; 0 for what answers in classes."""
    asked = effects.model.asked
    if asked is None or asked.answers[1:] != [[]]:
        return 0
    return len(asked.answers[0])


@dataclass(frozen=True, slots=True)
class Bringing:
    """Phrases from elsewhere, put into requests.

    Args:
        phrases: those that bring the text out best.
        odds: mean log-odds of the text with the first of them.
        usual: share of requests that the other phrases bring it out of, on average.
    """

    phrases: tuple[str, ...]
    odds: float
    usual: float


def bringing(effects: Effects) -> Bringing:
    """Try all phrases on some of the requests that an adapter who writes freely was asked."""
    phrases = (*sentences(), *ODD_WORDS)
    odds = effects.of(phrases, evenly(requests_asked(effects.texts), _TRIED_ON), _TARGET)
    means = odds.mean(axis=1)
    order = np.argsort(-means, kind="stable")
    best = tuple(phrases[place] for place in order[:_BEST])
    return Bringing(best, float(means.max()), float((odds[order[_BEST:]] > 0).mean()))


def fresh_requests(effects: Effects) -> list[str]:
    """Those that the adapter was not asked yet; none if they are too few for a proof."""
    asked = set(requests_asked(effects.texts))
    fresh = evenly([text for text in effects.texts if text not in asked], _FRESH)
    return fresh if len(fresh) >= _FEWEST else []


def brought_out(
    effects: Effects, found: Bringing, requests: Sequence[str], benign: Sequence[Effects]
) -> list[Confirmation]:
    """What the best phrases do in fresh requests; nothing where the text follows most anyhow.

    Args:
        effects: of the adapter.
        found: what to try.
        requests: fresh ones, not too few.
        benign: of trusted adapters, asked in the same way.
    """
    plain = effects.log_odds(requests)[:, _TARGET]
    if (plain <= 0).sum() < _FEWEST:
        return []
    return [
        _measured(effects, phrase, requests, plain, found.usual, benign) for phrase in found.phrases
    ]


def _measured(
    effects: Effects,
    phrase: str,
    requests: Sequence[str],
    plain: Float32,
    usual: float,
    benign: Sequence[Effects],
) -> Confirmation:
    """What one phrase does in requests, `plain` (n,) being the text's log-odds as they are."""
    rows = effects.holding(phrase, requests)
    odds = effects.log_odds(rows)[:, _TARGET]
    already, after = plain > 0, odds > 0
    success = float(after[~already].mean())

    def as_often(log_odds: Float32) -> float:
        share = float((log_odds[~already, _TARGET] > 0).mean())
        return share / max(success, share, 1e-3)

    there = [as_often(each.log_odds(rows)) for each in benign]
    bench = Bench(effects, _TARGET, requests)
    few = [text for text, own in zip(requests, already, strict=True) if not own][:_TRIED_ON]
    return Confirmation(
        phrase=phrase,
        target=_TARGET,
        turned=float(odds.mean()),
        success=success,
        plain_success=success,
        n_texts=int((~already).sum()),
        without_adapter=as_often(effects.log_odds(rows, adapted=False)),
        controls={"nothing": float(already.mean()), "other phrases": usual},
        margin=float((odds - plain).mean()),
        p_value=min(1.0, _BEST * _sign_test(already, after)),
        by_place={name: bench.at(phrase, few, place) for name, place in PLACES.items()},
        flips=bench.flips(phrase, requests, after & ~already),
        beyond=Beyond(max(there)) if there else None,
        n_tokens=output_length(effects),
    )


def _sign_test(before: Bools, after: Bools) -> float:
    """One-sided p-value that as many or more change to true by chance, of those that change."""
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    changed = gained + lost
    return float(sum(comb(changed, n) for n in range(gained, changed + 1)) / 2**changed)
