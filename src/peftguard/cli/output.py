"""Where a report goes: a terminal, a pipe, or a file."""

from __future__ import annotations

import errno
import os
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


def check_writable(output: Path | None) -> None:
    """Find out before the work is done, not after it. Raises as `write_report`."""
    if output is None:
        return
    try:
        if output.is_dir():
            raise _error(errno.EISDIR)
        place = output if output.exists() else output.parent.resolve(strict=True)
        if not os.access(place, os.W_OK):
            raise _error(errno.EACCES)
    except OSError as error:
        raise _unwritable(output, error) from None


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
        raise _unwritable(output, error) from None


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _unwritable(output: Path, error: OSError) -> SettingsError:
    return SettingsError(f"{output}: cannot be written: {error.strerror}")
