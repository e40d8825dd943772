"""Fitted detectors by name: the ones that ship, and those that other packages publish."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from peftguard.detectors.base import Detector
from peftguard.errors import SettingsError

GROUP = "peftguard.detectors"


def detector_names() -> list[str]:
    """Names of all detectors that are installed, sorted."""
    return sorted(_published())


def load_detectors(names: list[str] | None = None) -> list[Detector]:
    """The detectors called `names`, or every installed one.

    Raises:
        SettingsError: no detector of that name is installed.
    """
    published = _published()
    unknown = [name for name in names or [] if name not in published]
    if unknown:
        known = ", ".join(sorted(published)) or "none"
        raise SettingsError(f"no detector called {unknown[0]!r}; installed: {known}")
    return [published[name].load()() for name in names or sorted(published)]


def _published() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
