"""Ours: where updates write and what word they listen to, added up.

The two fail differently. Output spaces (`outputs`) need examples, and carry over methods, ranks and
much of the attacks; a lone word (`response`) needs no example of an attack and carries over data,
but sees only triggers made of words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peftguard.detectors.base import Estimator, Scores, State, array_of, as_labels
from peftguard.detectors.outputs import Outputs
from peftguard.detectors.response import Response, share_that_reads, vocabulary_at_hand
from peftguard.errors import SettingsError
from peftguard.features.memory import Memory
from peftguard.features.weights import Weights

Float64 = NDArray[np.float64]

FOLDS = 5
_LEAST_SPREAD = 1e-9


class Ensemble(Estimator):
    """The sum of its members' scores, each in units of its spread over benign adapters, as arsinh.

    The inverse hyperbolic sine leaves small scores as they are and takes large ones by their
    logarithm: one loud word of a harmless task must not outweigh everything else.
    Centre and spread come from adapters that a member was not trained on, by cross-fitting. The
    weights are equal and not learnt: learnt ones trust what separates the training domain, and did
    worse on data that was not in it. Where the base model's vocabulary is not at hand, or most
    adapters leave the first attention alone, `response` is left out.

    Args:
        seed: of the folds.
        memory: shared by the members.
    """

    name: ClassVar[str] = "ensemble"
    kinds: ClassVar[tuple[type[Estimator], ...]] = (Outputs, Response)
    """Of its members."""

    def __init__(self, seed: int = 0, memory: Memory | None = None) -> None:
        self.seed, self.memory = seed, memory

    def fit(self, X: Sequence[Weights], y: ArrayLike) -> Self:
        """Fit the members and their scales. Arguments and errors as of `Estimator.fit`."""
        labels = as_labels(X, y)
        self.kinds_ = [kind for kind in self.kinds if kind is not Response or _has_vocabulary(X)]
        table = self._held_out(X, labels)
        benign = table[labels == 0]
        self.centre_ = benign.mean(axis=0)
        self.spread_ = np.maximum(benign.std(axis=0), _LEAST_SPREAD)
        sums = self._sums(table)
        self.threshold_ = float(np.mean([sums[labels == label].mean() for label in (0, 1)]))
        self.members_ = self._fitted(X, labels)
        return self

    def decision_function(self, X: Sequence[Weights]) -> Scores:
        """(n,) sums less the threshold, halfway between the classes' means."""
        return self._sums(_table(self.members_, X)) - self.threshold_

    def evidence(self, x: Weights) -> list[str]:
        """What its members have to say."""
        return [clause for member in self.members_ for clause in member.evidence(x)]

    def state(self) -> State:
        """Everything the members learnt, and their scales."""
        tensors: dict[str, NDArray[Any]] = {
            "centre": self.centre_,
            "spread": self.spread_,
            "threshold": np.array([self.threshold_]),
        }
        settings: dict[str, Any] = {"members": {}}
        for member in self.members_:
            own = member.state()
            tensors |= {f"{member.name}.{name}": array for name, array in own.tensors.items()}
            settings["members"][member.name] = own.settings
        return State(tensors, settings)

    def restore(self, state: State) -> Self:
        """Errors as of `Estimator.restore`."""
        members = state.settings["members"]
        known = {kind.name: kind for kind in self.kinds}
        if not isinstance(members, dict) or not members or not set(members) <= set(known):
            raise ValueError(f"members: expected some of {', '.join(known)}")
        self.kinds_ = [known[name] for name in members]
        self.members_ = [_restored(kind, state) for kind in self.kinds_]
        self.centre_, self.spread_ = (
            array_of(state, name, (len(members),)).astype(np.float64)
            for name in ("centre", "spread")
        )
        if not (self.spread_ > 0).all():
            raise ValueError("spread: expected positive numbers")
        self.threshold_ = float(array_of(state, "threshold", (1,))[0])
        return self

    def _sums(self, table: Float64) -> Scores:
        """(n,) of (n, members) scores."""
        sums: Scores = np.arcsinh((table - self.centre_) / self.spread_).sum(axis=1)
        return sums

    def _held_out(self, X: Sequence[Weights], labels: NDArray[np.int64]) -> Float64:
        """(n, members) scores, each by members fitted without that adapter's fold."""
        folds = _folds(labels, self.seed)
        table = np.zeros((len(X), len(self.kinds_)))
        for fold in range(FOLDS):
            inside = np.flatnonzero(folds != fold).tolist()
            outside = np.flatnonzero(folds == fold).tolist()
            members = self._fitted([X[place] for place in inside], labels[inside])
            table[outside] = _table(members, [X[place] for place in outside])
        return table

    def _fitted(self, X: Sequence[Weights], labels: NDArray[np.int64]) -> list[Estimator]:
        members: list[Estimator] = [kind() for kind in self.kinds_]
        for member in members:
            if "memory" in member.get_params():
                member.set_params(memory=self.memory)
        return [member.fit(X, labels) for member in members]


def _folds(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """(n,) fold of each adapter, both classes spread evenly.

    Raises:
        SettingsError: a class has fewer than two adapters, so that a fold would be without it.
    """
    rng = np.random.default_rng(seed)
    folds = np.zeros(len(labels), np.int64)
    for label in (0, 1):
        own = np.flatnonzero(labels == label)
        if len(own) < 2:
            raise SettingsError("the ensemble needs two adapters of each class at least")
        folds[own] = rng.permutation(len(own)) % FOLDS
    return folds


def _has_vocabulary(X: Sequence[Weights]) -> bool:
    bases = {x.base_model for x in X}
    vocabulary = vocabulary_at_hand(next(iter(bases))) if len(bases) == 1 else None
    # With more than half, no fold holds them all, whatever the seed.
    return vocabulary is not None and share_that_reads(X, vocabulary) > 0.5


def _table(members: Sequence[Estimator], X: Sequence[Weights]) -> Float64:
    """(n, members) scores."""
    return np.stack([member.decision_function(X) for member in members], axis=1)


def _restored(kind: type[Estimator], state: State) -> Estimator:
    settings = state.settings["members"][kind.name]
    if not isinstance(settings, dict):
        raise ValueError(f"members: expected settings of {kind.name}")
    prefix = f"{kind.name}."
    own = {
        key.removeprefix(prefix): array
        for key, array in state.tensors.items()
        if key.startswith(prefix)
    }
    return kind().restore(State(own, settings))
