"""Where a report goes: a terminal, a pipe, or a file."""

from __future__ import annotations

import sys
from pathlib import Path

from peftguard.errors import SettingsError
from peftguard.reports import Format, render
from peftguard.results import Scan


def write_report(report: Scan, fmt: Format, output: Path | None) -> None:
    """Render a scan to `output`, or to stdout: in colour if that is a terminal.

    Raises:
        SettingsError: the file cannot be written.
    """
    if fmt is Format.TEXT and output is None:
        from rich.console import Console

        from peftguard.reports.text import print_scan

        print_scan(report, Console(highlight=False))
        return
    write_text(render(report, fmt), output)


def write_text(text: str, output: Path | None) -> None:
    """Write `text` to the file `output` in UTF-8, or to stdout. Raises as `write_report`."""
    text = text if text.endswith("\n") else f"{text}\n"
    if output is None:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{output}: cannot be written: {error.strerror}") from None
