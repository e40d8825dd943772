"""The leak test: what can be told from the recipe alone, without looking at a weight.

In a benchmark whose benign and backdoored adapters share their recipes it is chance, AUROC .5.
Where it is not, every other figure is in doubt: a detector may have learnt how adapters were
trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peftguard.features.weights import Weights
from peftguard.padbench.manifest import Row

NUMBERS = (
    "lr",
    "lr_ratio",
    "batch_size",
    "steps",
    "rank",
    "alpha",
    "n_rows",
    "max_tokens",
)
WORDS = ("method", "dataset")
"""Not the poison rate, which is the label; nor the attack, which every row of a cell has."""


class LeakTest:
    """Gradient boosting on the recipe columns of the manifest.

    Args:
        rows: the manifest's row of every adapter.
        seed: of the boosting.
    """

    def __init__(self, rows: Mapping[Weights, Row], seed: int = 0) -> None:
        self.rows = rows
        self.seed = seed

    def fit(self, X: Sequence[Weights], y: ArrayLike) -> LeakTest:
        """Learn from the rows of adapters X and their labels (n,)."""
        from sklearn.compose import make_column_transformer
        from sklearn.ensemble import GradientBoostingClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder

        columns = make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore", sparse_output=False), slice(0, len(WORDS))),
            remainder="passthrough",
        )
        boosting = GradientBoostingClassifier(
            n_estimators=50, max_depth=3, subsample=0.8, random_state=self.seed
        )
        self.model_: Any = make_pipeline(columns, boosting).fit(self._table(X), y)
        return self

    def decision_function(self, X: Sequence[Weights]) -> NDArray[np.float64]:
        """(n,) log-odds of a backdoor."""
        return np.asarray(self.model_.decision_function(self._table(X)), dtype=np.float64)

    def _table(self, X: Sequence[Weights]) -> NDArray[Any]:
        """(n, columns) objects; what the manifest does not say is one value of its own."""
        rows = [self.rows[weights] for weights in X]
        table = [
            [str(getattr(row, name)) for name in WORDS]
            + [-1.0 if getattr(row, name) is None else getattr(row, name) for name in NUMBERS]
            for row in rows
        ]
        return np.array(table, dtype=object)
