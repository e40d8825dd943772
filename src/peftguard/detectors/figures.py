"""Spectral figures of adapters as one table, the same modules for each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.update import Update
from peftguard.detectors.base import State
from peftguard.features.memory import Memory
from peftguard.features.profile import ModuleProfile
from peftguard.features.spectrum import profile
from peftguard.features.weights import Weights


def figures(
    X: Sequence[Weights], modules: Sequence[str], names: Sequence[str], memory: Memory | None
) -> NDArray[np.float64]:
    """(n, modules, names) figures, by their names in `ModuleProfile`.

    NaN where an adapter has no such module, or a figure is undefined (ratios of a zero update).
    """
    memory = memory or Memory()
    table = np.full((len(X), len(modules), len(names)), np.nan)
    for row, adapter in enumerate(X):
        for column, module in enumerate(modules):
            if module in adapter.modules:
                compute = partial(_profile, module=module)
                found = memory.of(f"profile:{module}", adapter, compute)
                table[row, column] = [getattr(found, name) for name in names]
    return table


def modules_of(state: State) -> list[str]:
    """Stored names of modules.

    Raises:
        KeyError: there are none.
        ValueError: they are not a list of names.
    """
    modules = state.settings["modules"]
    if not (isinstance(modules, list) and all(isinstance(module, str) for module in modules)):
        raise ValueError(f"modules: expected a list of names, found {modules!r:.100}")
    return modules


def _profile(adapter: Weights, module: str) -> ModuleProfile:
    factors = adapter.modules[module]
    return profile(Update(module, factors.A, factors.B))
