"""Which candidates are put to the proof."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from peftguard.trigger.beside import Unlike
from peftguard.trigger.confirm import confirm, tried
from peftguard.trigger.judge import judged, turns_enough
from peftguard.trigger.report import Proof
from peftguard.trigger.search import CONTEXTS, Candidate, Found, Pulls, grown

if TYPE_CHECKING:
    from peftguard.trigger.effect import Effects
    from peftguard.trigger.words import Words

_NEARLY = -2.0
"""Log-odds of what a decoder is nearly turned to."""
_ORDINARY = 2
"""Candidates that are tried in ordinary texts."""


def proven(
    effects: Effects,
    words: Words,
    found: Found,
    benign: Sequence[Effects] = (),
    unlike: Sequence[Unlike] = (),
    seed: int = 0,
) -> Proof | None:
    """The proof of the candidate that turns most texts, confirmed ones first; None without any.

    In texts that argue against it; if nothing is proven there, beside benign adapters in ordinary
    ones.

    Args:
        effects: of the adapter.
        words: where controls come from.
        found: by the search.
        benign: effects of other adapters of the same task, to be compared with.
        unlike: what moves ordinary texts further than these do, furthest first.
        seed: of the choice of controls.
    """
    prove = partial(_proofs, effects, words, found.pulls, benign, seed)
    proofs = prove(_worth_proving(effects, words, found, benign))
    if not any(proof.confirmed for proof in proofs):
        proofs += prove(_turning_alone(effects, unlike), ordinary=True)
    return best_of(proofs)


def best_of(proofs: Sequence[Proof]) -> Proof | None:
    """The one that turns most texts, confirmed ones first."""
    return max(proofs, key=lambda proof: (proof.confirmed, proof.success), default=None)


def _turning_alone(effects: Effects, unlike: Sequence[Unlike]) -> list[Candidate]:
    """Of what moves this adapter alone, the first that turns texts, for a proof in ordinary ones.

    They were tried on the texts that the model is surest of. A decoder is very sure of these: what
    nearly turns them turns others.
    """
    least = 0.0 if effects.model.asked is None else _NEARLY
    turning = [one.candidate for one in unlike if one.alone and one.candidate.turned > least]
    return turning[:_ORDINARY]


def _worth_proving(
    effects: Effects, words: Words, found: Found, benign: Sequence[Effects]
) -> list[Candidate]:
    """What turns texts that argue against it, and tells or turns most, alone or with other words.

    With benign adapters also what turns most beyond what it does there.
    """
    if not found.candidates:
        return []
    candidates = [*_telling(effects, found, benign), grown(effects, words, found)]
    return list({(one.phrase, one.target): one for one in candidates if one.turned > 0}.values())


def _telling(effects: Effects, found: Found, benign: Sequence[Effects]) -> list[Candidate]:
    turning = [one for one in found.candidates if one.turned > 0]
    first = [*turning[:1], *sorted(turning, key=lambda one: -one.turned)[:1]]
    if not benign or not turning:
        return first
    targets = {one.target for one in turning}
    texts = {target: effects.opposed(target, CONTEXTS, found.pulls) for target in targets}

    def beyond(one: Candidate) -> float:
        odds = (each.of([one.phrase], texts[one.target], one.target) for each in benign)
        return one.turned - max(float(each.mean()) for each in odds)

    return [*first, max(turning, key=beyond)]


def _proofs(
    effects: Effects,
    words: Words,
    pulls: Pulls,
    benign: Sequence[Effects],
    seed: int,
    candidates: Sequence[Candidate],
    *,
    ordinary: bool = False,
) -> list[Proof]:
    """Of those that turn enough texts for a proof, and in any case of the one that turns most."""
    found = [tried(effects, one, pulls, ordinary=ordinary) for one in candidates]
    usable = [one for one in found if one is not None]
    most = max((one.success for one in usable), default=0.0)
    first = next((one for one in usable if one.success == most), None)
    return [
        judged(confirm(effects, words, one, benign=benign, seed=seed))
        for one in usable
        if one is first or turns_enough(one.success, one.by_place)
    ]
