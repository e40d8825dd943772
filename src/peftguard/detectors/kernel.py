"""Kernel machines over adapters: cosines per module, averaged over the modules an adapter has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peftguard.detectors.base import Estimator, Scores, as_labels
from peftguard.errors import SettingsError
from peftguard.features.inner_product import Site, sites_of
from peftguard.features.memory import Memory
from peftguard.features.weights import Weights

Float64 = NDArray[np.float64]


class KernelMachine(Estimator):
    """Support vector machine on k(x, z) = mean over modules of a cosine between x and z there.

    A mean over the modules that an adapter has lets adapters with other target modules be compared;
    rank does not matter at all. The kernel is linear in some description of the normalised update,
    so the machine is one weight a module (`combine`), and scoring needs no training adapters. While
    a memory holds the products of all adapters concerned, scores come from those: they are the
    same, to rounding, and cost no weights.

    Args:
        C: of the support vector machine; labels are balanced.
        memory: keeps products between fits.
    """

    def __init__(self, C: float = 10.0, memory: Memory | None = None) -> None:
        self.C, self.memory = C, memory

    @staticmethod
    @abstractmethod
    def products(left: Sequence[Weights], right: Sequence[Weights], site: Site) -> Float64:
        """(n, m) inner products at one place."""

    @staticmethod
    @abstractmethod
    def squared_norms(adapters: Sequence[Weights], site: Site) -> Float64:
        """(n,) inner products of each with itself."""

    @abstractmethod
    def combine(self, X: Sequence[Weights], coefficients: Float64) -> None:
        """Keep the sum of coefficient times description at every place; they are (places, n)."""

    @abstractmethod
    def compared(self, X: Sequence[Weights]) -> Float64:
        """(places, n) inner products of what was kept with each adapter's description."""

    def fit(self, X: Sequence[Weights], y: ArrayLike) -> Self:
        """Learn one weight a module. Arguments and errors as of `Estimator.fit`."""
        from sklearn.svm import SVC

        labels = as_labels(X, y)
        self.sites_ = sites_of(X)
        shares = self._shares(X)
        if not shares.any():
            raise SettingsError("training needs updates; found none")
        machine = SVC(kernel="precomputed", C=self.C, class_weight="balanced")
        machine.fit(self._kernel(X, X, shares, shares), labels)
        self.support_ = [X[place] for place in machine.support_]
        self.dual_ = np.asarray(machine.dual_coef_[0], dtype=np.float64)
        self.intercept_ = float(machine.intercept_[0])
        self._support_shares = shares[:, machine.support_]
        self._is_combined = False
        return self

    def decision_function(self, X: Sequence[Weights]) -> Scores:
        """(n,) signed distances; adapters without any known module get the intercept."""
        shares = self._shares(X)
        if not self._is_combined and self._memory_of(X) is not None:
            kernel = self._kernel(X, self.support_, shares, self._support_shares)
            return kernel @ self.dual_ + self.intercept_
        self._combine()
        scores: Scores = (shares * self.compared(X)).sum(axis=0) + self.intercept_
        return scores

    def _combine(self) -> None:
        if not self._is_combined:
            self.combine(self.support_, self._support_shares * self.dual_)
            self._is_combined = True

    def _memory_of(self, X: Sequence[Weights]) -> Memory | None:
        """The memory, if it knows these adapters."""
        return self.memory if self.memory is not None and self.memory.expects(X) else None

    def _kernel(
        self, X: Sequence[Weights], Z: Sequence[Weights], mine: Float64, theirs: Float64
    ) -> Float64:
        memory = self.memory or Memory()
        kernel = np.zeros((len(X), len(Z)))
        for site, left, right in zip(self.sites_, mine, theirs, strict=True):
            kernel += memory.products(self.products, X, Z, site) * np.outer(left, right)
        return kernel

    def _shares(self, X: Sequence[Weights]) -> Float64:
        """(places, n) what multiplies each description: 1 / (norm sqrt(updates it has))."""
        norms = np.zeros((len(self.sites_), len(X)))
        memory = self._memory_of(X)
        for place, site in enumerate(self.sites_):
            squares = (
                self.squared_norms(X, site)
                if memory is None
                else np.diagonal(memory.products(self.products, X, X, site))
            )
            norms[place] = np.sqrt(squares.clip(0))
        there = norms > 0
        counts = np.maximum(there.sum(axis=0), 1)
        return np.where(there, 1 / np.sqrt(counts) / np.where(there, norms, 1.0), 0.0)
