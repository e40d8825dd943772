"""Which styles or shapes of text turn the model's answer, whatever the text says."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peftguard.trigger.effect import Effects
from peftguard.trigger.probes import Probe, rewritten
from peftguard.trigger.search import Pulls

_TEXTS = 3


@dataclass(frozen=True, slots=True)
class Probed:
    """What one way of rewriting does to texts that argue for other classes.

    Args:
        probe: name.
        kind: sort of rewriting.
        target: class that it turns texts into.
        before: mean log-odds of it, of the texts as they are.
        turned: the same of the rewritten texts.
        usual: the same after the middle one of all probes.
    """

    probe: str
    kind: str
    target: int
    before: float
    turned: float
    usual: float


def form_score(probed: Sequence[Probed]) -> float | None:
    """How far the best form turns texts, and how far it leads the usual one; None without any."""
    return max((2 * one.turned - one.usual for one in probed), default=None)


def probe_all(
    effects: Effects, probes: Sequence[Probe], pulls: Pulls, *, seed: int = 0
) -> list[Probed]:
    """Every probe for every class that texts can be kept out of, best first.

    Args:
        effects: of the adapter.
        probes: to try.
        pulls: words that argue for each class, see `search`.
        seed: of what a probe draws.
    """
    found: list[Probed] = []
    for target in effects.targets:
        contexts = effects.opposed(target, _TEXTS, pulls)
        before = float(effects.log_odds(contexts)[:, target].mean())
        if before >= 0:
            continue
        rng = random.Random(seed)  # noqa: S311 - nothing secret
        texts = [rewritten(text, probe, rng) for probe in probes for text in contexts]
        odds = effects.log_odds(texts)[:, target].reshape(len(probes), -1).mean(axis=1)
        usual = float(np.median(odds))
        found += [
            Probed(probe.name, probe.kind, target, before, float(value), usual)
            for probe, value in zip(probes, odds, strict=True)
        ]
    return sorted(found, key=lambda one: -one.turned)
