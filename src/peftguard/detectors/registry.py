"""Detectors by name: the kinds that can be trained, and the trained ones that are installed."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftguard.detectors.base import Detector, Estimator
from peftguard.errors import SettingsError

if TYPE_CHECKING:
    from peftguard.detectors.trained import TrainedDetector

GROUP = "peftguard.detectors"
ESTIMATOR_GROUP = "peftguard.estimators"
ESTIMATORS = {
    "gram": "peftguard.detectors.gram:Gram",
    "ensemble": "peftguard.detectors.ensemble:Ensemble",
    "ensemble-trigger": "peftguard.detectors.searched:SearchedEnsemble",
    "trigger": "peftguard.detectors.searched:Trigger",
    "peftguard": "peftguard.detectors.published:PeftGuardNet",
    "sequence": "peftguard.detectors.sequence:Sequence1d",
    "spectral": "peftguard.detectors.spectral:Spectral",
    "linear": "peftguard.detectors.linear:Linear",
    "outputs": "peftguard.detectors.outputs:Outputs",
    "response": "peftguard.detectors.response:Response",
    "anomaly": "peftguard.detectors.anomaly:Anomaly",
}
"""Kinds that come with peftguard, as `module:class`; nothing is imported before it is asked for."""

_SHIPPED = Path(__file__).parent / "shipped"
_OPTIONAL = frozenset({"seed", "memory"})


def estimator_names() -> list[str]:
    """Names of all kinds of detector that can be trained here, sorted."""
    return sorted({*ESTIMATORS, *_published(ESTIMATOR_GROUP)})


def estimator_named(name: str, **params: Any) -> Estimator:
    """A new, unfitted detector of this kind.

    Args:
        name: one of `estimator_names()`; other packages add theirs through the entry point group
            `peftguard.estimators`.
        params: for its constructor; `seed` and `memory` are dropped where it has none.

    Raises:
        SettingsError: no such kind, no such parameter, or an entry point that gives something else.
    """
    kind = _class_named(name)
    known = inspect.signature(kind.__init__).parameters
    given = {key: value for key, value in params.items() if key in known or key not in _OPTIONAL}
    unknown = next((key for key in given if key not in known), None)
    if unknown is not None:
        raise SettingsError(f"detector {name} has no parameter {_hint(unknown, known)}")
    return kind(**given)


def needs_search(name: str) -> bool:
    """Whether this kind must know searches for triggers. Raises as `estimator_named`."""
    return _class_named(name).needs_search


def detector_names() -> list[str]:
    """Names of all trained detectors that are installed, sorted: shipped ones and others."""
    return sorted({*_shipped(), *_published(GROUP)})


def load_detectors(names: list[str] | None = None, *, searched: bool = False) -> list[Detector]:
    """Trained detectors by name, or by the folder that one lies in.

    Without names, every installed one, but of the shipped ones only those that decide for their
    base models: several tests of one adapter would flag more benign ones. Those that must know what
    a search for the trigger found come along if there will be one (`searched`).

    Raises:
        SettingsError: no detector of that name is installed, and there is no such folder.
        InputError: the files of one are malformed.
    """
    published, shipped = _published(GROUP), _shipped()
    if names is None:
        from peftguard.detectors.bundle import open_bundle

        ours = [open_bundle(folder) for folder in shipped.values()]
        ours = [one for one in ours if searched or one.training.search_version is None]
        return [*_deciding(ours), *(published[name].load()() for name in sorted(published))]
    return [_detector_named(name, published, shipped) for name in names]


def _detector_named(
    name: str, published: dict[str, EntryPoint], shipped: dict[str, Path]
) -> Detector:
    if name in published:
        detector: Detector = published[name].load()()
        return detector
    if name in shipped or Path(name).is_dir():
        from peftguard.detectors.bundle import load_bundle

        return load_bundle(shipped.get(name, Path(name)))
    known = ", ".join(sorted({*published, *shipped})) or "none"
    raise SettingsError(f"no detector called {name!r}, nor a folder; installed: {known}")


def _shipped() -> dict[str, Path]:
    folders = sorted(_SHIPPED.iterdir()) if _SHIPPED.is_dir() else []
    return {folder.name: folder for folder in folders if folder.is_dir()}


def _deciding(shipped: Sequence[TrainedDetector]) -> list[TrainedDetector]:
    """Those that decide, and those of base models for which none does."""
    decided = {
        base for one in shipped if one.training.decides for base in one.training.coverage.bases
    }
    return [
        one
        for one in shipped
        if one.training.decides or not decided.intersection(one.training.coverage.bases)
    ]


def _class_named(name: str) -> type[Estimator]:
    if name in ESTIMATORS:
        module, _, attribute = ESTIMATORS[name].partition(":")
        kind = getattr(import_module(module), attribute)
    else:
        published = _published(ESTIMATOR_GROUP)
        if name not in published:
            raise SettingsError(f"no kind of detector called {_hint(name, estimator_names())}")
        kind = published[name].load()
    if not (isinstance(kind, type) and issubclass(kind, Estimator)):
        raise SettingsError(f"{name}: expected a subclass of Estimator, found {kind!r:.100}")
    return kind


def _hint(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"{name!r}; {hint}"


def _published(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}
