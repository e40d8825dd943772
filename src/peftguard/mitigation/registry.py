"""Methods by name, one idea a file; and which of them is taken when nobody says."""

from __future__ import annotations

import difflib

from peftguard.errors import SettingsError
from peftguard.mitigation.fine_mixing import BenignMixing, FineMixing
from peftguard.mitigation.fine_pruning import FinePruning
from peftguard.mitigation.fine_tuning import FineTuning
from peftguard.mitigation.interpolation import Interpolation
from peftguard.mitigation.intruders import IntruderReduction
from peftguard.mitigation.method import Given, Method, lacking
from peftguard.mitigation.pruning import DirectionPruning, EntryPruning
from peftguard.mitigation.rescaling import Rescaling
from peftguard.mitigation.trigger_removal import TriggerRemoval
from peftguard.mitigation.unlearning import Unlearning

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        FineMixing(),
        TriggerRemoval(),
        Unlearning(),
        BenignMixing(),
        FineTuning(),
        FinePruning(),
        Interpolation(),
        Rescaling(),
        DirectionPruning(),
        EntryPruning(),
        IntruderReduction(),
    )
}
AUTO = "auto"
_IN_ORDER = ("fine-mixing-benign", "fine-mixing", "remove-trigger")
"""What `auto` tries, as measured (docs/mitigation.md). `unlearn` is as good with clean rows, but it
knows one trigger alone; the rest leaves too many backdoors as they are."""


def method_for(name: str, given: Given) -> Method:
    """The method of that name; of `auto`, the best that what is given allows.

    Raises:
        SettingsError: there is none, or something that it needs was not given.
    """
    if name == AUTO:
        return _best(given)
    method = method_named(name)
    missing = method.missing(given)
    if missing:
        raise lacking(method.name, missing)
    return method


def method_named(name: str) -> Method:
    """The method of that name, whatever it needs.

    Raises:
        SettingsError: there is none.
    """
    method = METHODS.get(name)
    if method is None:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {AUTO}, {', '.join(METHODS)}"
        raise SettingsError(f"no method {name!r}; {hint}")
    return method


def _best(given: Given) -> Method:
    for name in _IN_ORDER:
        if not METHODS[name].missing(given):
            return METHODS[name]
    told = "; ".join(str(lacking(name, METHODS[name].missing(given))) for name in _IN_ORDER)
    raise SettingsError(f"what was given allows no method that works: {told}")
