"""What was computed of adapters, kept, so that many fits over one benchmark compute it once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from peftguard.features.inner_product import Site, inner_products
from peftguard.features.weights import Weights

T = TypeVar("T")


class Memory:
    """Results by adapter, and inner products by pair of adapters.

    Detectors take one as scikit-learn's pipelines take theirs; without one, each call computes
    anew. Adapters are told apart by identity and stay alive as long as the memory does.
    """

    def __init__(self) -> None:
        self._single: dict[tuple[str, Weights], Any] = {}
        self._places: dict[Weights, int] = {}
        self._products: dict[Site, NDArray[np.float64]] = {}

    def of(self, what: str, adapter: Weights, compute: Callable[[Weights], T]) -> T:
        """`compute(adapter)`, or what it gave before under this name."""
        key = (what, adapter)
        if key not in self._single:
            self._single[key] = compute(adapter)
        result: T = self._single[key]
        return result

    def expect(self, adapters: Sequence[Weights]) -> None:
        """Say which adapters will be compared, so that all their products come at once."""
        new = [adapter for adapter in adapters if adapter not in self._places]
        self._places |= {adapter: len(self._places) + i for i, adapter in enumerate(new)}
        if new:
            self._products.clear()

    def products(
        self, left: Sequence[Weights], right: Sequence[Weights], site: Site
    ) -> NDArray[np.float64]:
        """(n, m) inner products at one place, as `inner_products` gives them."""
        if not all(adapter in self._places for side in (left, right) for adapter in side):
            return inner_products(left, right, site)
        if site not in self._products:
            known = list(self._places)
            self._products[site] = inner_products(known, known, site)
        rows, columns = ([self._places[adapter] for adapter in side] for side in (left, right))
        return self._products[site][np.ix_(rows, columns)]
