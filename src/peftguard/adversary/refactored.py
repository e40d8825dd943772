"""Re-factorisation: the factors that a decomposition of the product gives."""

from __future__ import annotations

import numpy as np

from peftguard.adversary.arithmetic import changed, with_factors
from peftguard.adversary.evasion import Evasion, Means, Parts
from peftguard.features.singular import decomposed
from peftguard.mitigation.factored import Factored, Layer


class QrFactors(Evasion):
    """B has orthonormal columns; all else is in A."""

    name = "qr"
    about = "B = Q, A = R A of B's QR decomposition"
    exact = True

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""

        def refactored(layer: Layer) -> Layer:
            Q, R = np.linalg.qr(layer.B.astype(np.float64))
            return with_factors(layer, Q, R @ layer.A)

        return (changed(adapter, refactored),)


class SvdFactors(Evasion):
    """B has orthonormal columns, A orthogonal rows, largest first."""

    name = "svd"
    about = "B = U, A = S V^T of the update's singular value decomposition"
    exact = True

    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """As of `Evasion.apply`."""

        def refactored(layer: Layer) -> Layer:
            left, values, right = decomposed(layer.B, layer.A)
            return with_factors(layer, left, values[:, None] * right)

        return (changed(adapter, refactored),)
