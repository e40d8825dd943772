"""What was computed of adapters, kept, so that many fits over one benchmark compute it once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from peftguard.features.inner_product import Site
from peftguard.features.weights import Weights

T = TypeVar("T")

Products = Callable[[Sequence[Weights], Sequence[Weights], Site], NDArray[np.float64]]
"""(n, m) numbers of every pair of adapters at one place."""


class Memory:
    """Results by adapter, and by pair of adapters.

    Detectors take one as scikit-learn's pipelines take theirs; without one, each call computes
    anew. Adapters are told apart by identity and stay alive as long as the memory does.
    """

    def __init__(self) -> None:
        self._single: dict[tuple[Hashable, Weights], Any] = {}
        self._places: dict[Weights, int] = {}
        self._pairs: dict[tuple[Products, Site], NDArray[np.float64]] = {}

    def __deepcopy__(self, memo: object) -> Memory:
        """Itself: a clone of a detector goes on with the same memory."""
        return self

    def of(self, what: Hashable, adapter: Weights, compute: Callable[[Weights], T]) -> T:
        """`compute(adapter)`, or what it gave before under this name."""
        key = (what, adapter)
        if key not in self._single:
            self._single[key] = compute(adapter)
        result: T = self._single[key]
        return result

    def expect(self, adapters: Sequence[Weights]) -> None:
        """Say which adapters will be compared, so that all their pairs come at once."""
        new = dict.fromkeys(one for one in adapters if one not in self._places)
        self._places |= {adapter: len(self._places) + i for i, adapter in enumerate(new)}
        if new:
            self._pairs.clear()

    def expects(self, adapters: Sequence[Weights]) -> bool:
        """Whether all of these are among the expected."""
        return all(adapter in self._places for adapter in adapters)

    def products(
        self, compute: Products, left: Sequence[Weights], right: Sequence[Weights], site: Site
    ) -> NDArray[np.float64]:
        """`compute(left, right, site)`, which must be symmetric and know of no other adapters."""
        if not (self.expects(left) and self.expects(right)):
            return compute(left, right, site)
        key = (compute, site)
        if key not in self._pairs:
            known = list(self._places)
            self._pairs[key] = compute(known, known, site)
        rows, columns = ([self._places[adapter] for adapter in side] for side in (left, right))
        return self._pairs[key][np.ix_(rows, columns)]
