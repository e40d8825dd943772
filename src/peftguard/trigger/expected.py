"""What a word would do if it did what words of its meaning do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_DIRECTIONS = 20
"""Of meaning, in which effects may differ: a task has few."""
_PENALTY = 0.1


def expected(meanings: Float32, effects: Float64) -> Float64:
    """(n,) effect of each word as foretold by all others: leave-one-out ridge regression.

    A task's words do what their meanings say, so one foretells another; a trigger is not foretold.

    Args:
        meanings: (n, h) of the words, see `Words.meanings`.
        effects: (n,) what each does.
    """
    centred = meanings.astype(np.float64) - meanings.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    plain = left[:, :_DIRECTIONS] * values[:_DIRECTIONS]
    X = np.concatenate([plain, np.ones((len(plain), 1))], axis=1)
    hat = X @ np.linalg.solve(X.T @ X + _PENALTY * np.eye(X.shape[1]), X.T)
    missed = (effects - hat @ effects) / np.maximum(1 - np.diagonal(hat), 1e-6)
    foretold: Float64 = effects - missed
    return foretold
