"""The Python call behind `peftguard scan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peftguard.results import Scan
from peftguard.settings import load_settings
from peftguard.verdict.batch import scan_targets


def scan(*targets: str | Path, config: Path | None = None, **settings: Any) -> Scan:
    """Scan adapters: folders, files, trees of them, or hub ids.

    Args:
        targets: what to scan, any number mixed.
        config: a settings file; by default `peftguard.toml` of the working folder, if there.
        settings: fields of `peftguard.settings.ScanSettings`, e.g. `fpr=0.05`, `cache=False`.

    Returns:
        One result an adapter, in input order. An unreadable input is a result labelled `unknown`.

    Raises:
        SettingsError: a setting is wrong.

    Usage:

    >>> import peftguard
    >>> report = peftguard.scan("path/to/adapter")  # doctest: +SKIP
    >>> report.results[0].verdict.label  # doctest: +SKIP
    <Label.UNKNOWN: 'unknown'>
    """
    return scan_targets([str(target) for target in targets], load_settings(config, **settings))
