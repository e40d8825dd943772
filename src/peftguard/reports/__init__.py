"""One scan in, one format out; the module of a format is imported when it is asked for."""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING

from peftguard.errors import SettingsError

if TYPE_CHECKING:
    from peftguard.results import Scan

__all__ = ["FORMATS", "Format", "render"]


class Format(StrEnum):
    """What a scan can be written as."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    HTML = "html"
    CYCLONEDX = "cyclonedx"


FORMATS: tuple[Format, ...] = tuple(Format)

_MODULES = {
    Format.TEXT: "peftguard.reports.text",
    Format.JSON: "peftguard.reports.json_report",
    Format.SARIF: "peftguard.reports.sarif",
    Format.HTML: "peftguard.reports.html",
    Format.CYCLONEDX: "peftguard.reports.cyclonedx",
}


def render(scan: Scan, format: Format | str = Format.TEXT) -> str:
    """The scan as one document, ending in a newline; the same scan gives the same text.

    Only a CycloneDX BOM differs from run to run, in its serial number and timestamp.

    Raises:
        SettingsError: there is no such format.
        MissingExtra: the format needs an optional dependency.
    """
    if format not in _MODULES:
        raise SettingsError(f"no such format: {format!r}; known: {', '.join(FORMATS)}")
    module = import_module(_MODULES[Format(format)])
    document: str = module.render(scan)
    return document
