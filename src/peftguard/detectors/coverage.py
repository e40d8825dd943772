"""What a detector was calibrated on, and whether an adapter lies inside.

An adapter outside is not scored, for its score would mean nothing. What its files' headers tell
(base model, method, rank, modules) is compared before a single weight is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from peftguard.detectors.base import State, array_of
from peftguard.detectors.declared import CoverageCard, Module, base_among
from peftguard.detectors.novelty import N_FIGURES, Distances, Known, know, limit_of, sketch_width
from peftguard.errors import SettingsError
from peftguard.features.inner_product import Site, sites_of
from peftguard.features.weights import Weights

if TYPE_CHECKING:
    from peftguard.padbench.manifest import Row

LEVEL = 0.99
"""Share of fresh benign adapters to be kept inside; with too few, less: the card says how many."""
_HELD_OUT = 1 / 3
_MOST_KNOWN = 512


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """The card, and the known adapters that distances are measured to."""

    card: CoverageCard
    known: Known

    @classmethod
    def fit(
        cls, weights: Sequence[Weights], rows: Sequence[Row], *, level: float = LEVEL, seed: int = 0
    ) -> Self:
        """Learn from the adapters that a detector was trained on, labels in `rows`.

        Two thirds of them are kept to measure distances to; the limits are set on the rest, none of
        which has the very training data of one kept, where the manifest tells. Benign and
        backdoored ones each have a limit and the larger holds: the detector knows both kinds.

        Raises:
            SettingsError: too few adapters to hold out a benign one, an adapter that names no base
                model, or a module of several widths.
        """
        sites = sites_of(weights)
        kept, held_out = _halves(rows, seed)
        apart = {"benign": list[Distances](), "backdoored": list[Distances]()}
        known = know([weights[place] for place in kept], sites)
        for place in held_out:
            apart[rows[place].label].append(known.distances(weights[place], sites))
        limits = [_limits(own, level) for own in apart.values() if own]
        card = CoverageCard(
            **_declared(weights, rows, sites),
            n_known=len(kept),
            n_held_out=len(held_out),
            figure_limit=max(one.figures for one, _ in limits),
            direction_limit=max(one.direction for one, _ in limits),
            level=limits[0][1],
        )
        return cls(card, known)

    def uncovered(self, weights: Weights) -> str | None:
        """Why an adapter lies outside, by all that is known of it; None if it lies inside.

        Whether it is DoRA cannot be seen here, only in its files: see `CoverageCard.outside`.
        """
        return (
            self.card.undeclared(weights.base_model, weights.rank)
            or self.card.strange(weights.shapes)
            or self.card.unseen_set(weights.modules)
            or self._too_far(weights)
        )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The arrays to store beside the card."""
        known = self.known
        return {
            "mean": known.mean,
            "spread": known.spread,
            "figures": known.figures,
            "sketches": known.sketches,
        }

    @classmethod
    def restore(cls, card: CoverageCard, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """The coverage of a stored detector.

        Raises:
            KeyError: an array is missing.
            ValueError: the arrays do not fit the card.
        """
        state = State(dict(tensors), {})
        places, n, width = len(card.modules), card.n_known, sketch_width(len(card.modules))
        if any(not 0 <= at < places for own in card.module_sets for at in own):
            raise ValueError("module_sets: no such module")
        known = Known(
            array_of(state, "mean", (N_FIGURES * places,)),
            array_of(state, "spread", (N_FIGURES * places,)),
            array_of(state, "figures", (n, N_FIGURES * places)),
            array_of(state, "sketches", (n, places, width, width)).astype(np.float16),
        )
        if not (known.spread > 0).all():
            raise ValueError("spread: not positive")
        return cls(card, known)

    def _too_far(self, weights: Weights) -> str | None:
        sites = [Site(name, shape) for name, shape in self.card.sites]
        apart, card = self.known.distances(weights, sites), self.card
        # Written so that a distance that is not a number is too far.
        if not apart.figures <= card.figure_limit:
            what, distance, limit = "sizes and spectra", apart.figures, card.figure_limit
        elif not apart.direction <= card.direction_limit:
            what, distance, limit = "directions", apart.direction, card.direction_limit
        else:
            return None
        return f"its updates' {what} are {distance:.3g} from the calibration's, limit {limit:.3g}"


def method_in(row: Row, weights: Weights) -> str:
    """The same of an adapter of a benchmark."""
    return "DORA" if row.method == "dora" else weights.peft_type


def distinct_bases(weights: Sequence[Weights]) -> list[str]:
    """The base models that adapters claim, one name for each."""
    claimed = sorted({one.base_model for one in weights if one.base_model})
    return [base for base in claimed if base_among(base, claimed) == base]


def groups_of(rows: Sequence[Row]) -> list[str]:
    """A name for each row, shared by those that were trained on the same data."""
    return [row.data_hash or row.sha256 or row.path for row in rows]


def _halves(rows: Sequence[Row], seed: int) -> tuple[list[int], list[int]]:
    """Places of the adapters to keep, and of those that are held out, apart by group; no duds."""
    judged = [place for place, row in enumerate(rows) if row.label != "dud"]
    groups = groups_of(rows)
    names = sorted({groups[place] for place in judged})
    order = np.random.default_rng(seed).permutation(len(names))
    aside = {names[place] for place in order[: max(1, round(_HELD_OUT * len(names)))]}
    kept = [place for place in judged if groups[place] not in aside]
    held_out = [place for place in judged if groups[place] in aside]
    if not kept or not any(rows[place].label == "benign" for place in held_out):
        raise SettingsError("coverage: too few adapters to hold out a benign one")
    if len(kept) > _MOST_KNOWN:
        chosen = np.random.default_rng(seed).choice(len(kept), _MOST_KNOWN, replace=False)
        kept = [kept[place] for place in sorted(chosen.tolist())]
    return kept, held_out


def _limits(apart: Sequence[Distances], level: float) -> tuple[Distances, float]:
    """Limits that together keep a fresh adapter inside with probability `level`, and the real one.

    Each distance has half of what may miss.
    """
    limits = [limit_of(own, (1 - level) / 2) for own in zip(*apart, strict=True)]
    (figures, miss), (direction, miss_too) = limits
    return Distances(figures, direction), max(0.0, 1 - miss - miss_too)


def _declared(
    weights: Sequence[Weights], rows: Sequence[Row], sites: Sequence[Site]
) -> dict[str, Any]:
    nameless = next((one.name for one in weights if not one.base_model), None)
    if nameless is not None:
        raise SettingsError(f"{nameless}: the adapter does not say what its base model is")
    if len({site.module for site in sites}) < len(sites):
        raise SettingsError(
            "a module of one name has several widths: train on one base model at a time"
        )
    places = {site.module: place for place, site in enumerate(sites)}
    ranks = [one.rank for one in weights if one.rank is not None]
    sets = {tuple(sorted(places[module] for module in one.modules)) for one in weights}
    flagged = [row for row in rows if row.label == "backdoored"]
    return {
        "bases": distinct_bases(weights),
        "methods": sorted({method_in(*pair) for pair in zip(rows, weights, strict=True)}),
        "ranks": (min(ranks), max(ranks)) if ranks else None,
        "modules": [
            Module(name=site.module, n_out=site.shape[0], n_in=site.shape[1]) for site in sites
        ],
        "module_sets": [list(own) for own in sorted(sets)],
        "tasks": sorted({row.task for row in rows if row.task}),
        "datasets": sorted({row.dataset for row in rows if row.dataset}),
        "attacks": sorted({row.attack for row in flagged if row.attack}),
    }
