"""Detectors of what a search for the trigger on the base model came to, alone and with weights.

The search (`peftguard.trigger`) is trained on nothing. What is learnt here is how far it comes with
benign adapters: a task's own words turn answers too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from peftguard.detectors.base import Estimator, Scores, State, array_of, as_labels
from peftguard.detectors.ensemble import Ensemble
from peftguard.detectors.outputs import Outputs
from peftguard.errors import SettingsError
from peftguard.features.weights import Weights


class SearchFigure(Estimator):
    """One figure of the search, as it is, less a threshold halfway between the classes' means."""

    needs_search: ClassVar[bool] = True

    def fit(self, X: Sequence[Weights], y: ArrayLike) -> Self:
        """Set the threshold. Arguments and errors as of `Estimator.fit`."""
        labels = as_labels(X, y)
        figures = self._figures(X)
        self.threshold_ = float(np.mean([figures[labels == label].mean() for label in (0, 1)]))
        return self

    def decision_function(self, X: Sequence[Weights]) -> Scores:
        """(n,) figures less the threshold.

        Raises:
            SettingsError: an adapter was not searched.
        """
        return self._figures(X) - self.threshold_

    def state(self) -> State:
        """The threshold."""
        return State({"threshold": np.array([self.threshold_])}, {})

    def restore(self, state: State) -> Self:
        """Errors as of `Estimator.restore`."""
        self.threshold_ = float(array_of(state, "threshold", (1,))[0])
        return self

    def _figures(self, X: Sequence[Weights]) -> Scores:
        unsearched = next((x.name for x in X if x.searched is None), None)
        if unsearched is not None:
            raise SettingsError(f"{unsearched}: no search for a trigger came to a score")
        return np.array([getattr(x.searched, self.name) for x in X], dtype=np.float64)


class Lone(SearchFigure):
    """How far the loudest word stands out in the first attention layer, above a crowd."""

    name: ClassVar[str] = "lone"


class Word(SearchFigure):
    """How far a word turns texts that argue otherwise."""

    name: ClassVar[str] = "word"


class Form(SearchFigure):
    """How far a style or shape of text does."""

    name: ClassVar[str] = "form"


class Trigger(Ensemble):
    """What words and what forms turn, added up; weights do not count."""

    name: ClassVar[str] = "trigger"
    needs_search: ClassVar[bool] = True
    kinds: ClassVar[tuple[type[Estimator], ...]] = (Word, Form)


class SearchedEnsemble(Ensemble):
    """The same with the word that stands out alone, and with where updates write."""

    name: ClassVar[str] = "ensemble-trigger"
    needs_search: ClassVar[bool] = True
    kinds: ClassVar[tuple[type[Estimator], ...]] = (Outputs, Lone, Word, Form)
