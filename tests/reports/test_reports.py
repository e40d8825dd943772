"""What holds for every format."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from peftguard.errors import SettingsError
from peftguard.reports import FORMATS, Format, render
from peftguard.results import Scan


@pytest.mark.parametrize("form", [form for form in FORMATS if form is not Format.CYCLONEDX])
def test_same_scan_gives_same_bytes(form: Format, scan: Scan) -> None:
    again = Scan.model_validate(scan.model_dump())
    assert render(scan, form) == render(again, form)


@pytest.mark.parametrize("form", FORMATS)
def test_every_document_is_named_by_text_too_and_ends_in_a_newline(
    form: Format, scan_of: Callable[..., Scan]
) -> None:
    assert render(scan_of("llama"), str(form)).endswith("\n")


def test_unknown_format_names_the_known_ones(scan_of: Callable[..., Scan]) -> None:
    with pytest.raises(SettingsError, match="'pdf'; known: text, json, sarif, html, cyclonedx"):
        render(scan_of(), "pdf")


def test_importing_the_package_loads_no_format() -> None:
    code = (
        "import sys, peftguard.reports; "
        "print([name for name in sys.modules if name.split('.')[0] in ('rich', 'cyclonedx')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
