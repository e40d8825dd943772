"""How a detector that is linear in the updates keeps its weights: low-rank factors by place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftguard.detectors.base import Scores, State, array_of
from peftguard.features.inner_product import Site
from peftguard.features.primal import response
from peftguard.features.weights import Factors, Weights


def responses(weights: Mapping[Site, Factors], X: Sequence[Weights]) -> Scores:
    """(n,) inner products of each adapter with the weights, summed over the places."""
    sums = [sum(response(weight, x, site) for site, weight in weights.items()) for x in X]
    return np.asarray(sums, dtype=np.float64)


def stored(weights: Mapping[Site, Factors], intercept: float) -> State:
    """The weights and what is added to their responses."""
    tensors: dict[str, NDArray[Any]] = {"intercept": np.array([intercept])}
    for place, weight in enumerate(weights.values()):
        tensors |= {f"{place}.A": weight.A, f"{place}.B": weight.B}
    return State(tensors, {"sites": sites_as_json(weights)})


def restored(state: State) -> tuple[dict[Site, Factors], float]:
    """What was `stored`.

    Raises:
        KeyError: something is missing.
        ValueError: something does not fit together.
    """
    weights: dict[Site, Factors] = {}
    for place, site in enumerate(sites_of_state(state)):
        A = array_of(state, f"{place}.A", (None, site.shape[1]))
        B = array_of(state, f"{place}.B", (site.shape[0], len(A)))
        weights[site] = Factors(B.astype(np.float32), A.astype(np.float32))
    return weights, float(array_of(state, "intercept", (1,))[0])


def sites_as_json(sites: Iterable[Site]) -> list[list[str | int]]:
    """Places, as settings hold them."""
    return [[site.module, *site.shape] for site in sites]


def sites_of_state(state: State) -> list[Site]:
    """The places in a detector's settings.

    Raises:
        KeyError: there are none.
        ValueError: they are not what `sites_as_json` gives.
    """
    entries = state.settings["sites"]
    if not isinstance(entries, list):
        raise ValueError(f"sites: expected a list, found {entries!r:.100}")
    return [_site(entry) for entry in entries]


def _site(entry: Any) -> Site:
    match entry:
        case [str(module), int(out), int(into)]:
            return Site(module, (out, into))
    raise ValueError(f"sites: expected a module, its height and its width, found {entry!r:.100}")
