from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.cells import cell_len
from rich.console import Console

from peftguard.reports.text import print_scan, render
from peftguard.results import Label, Result, Scan

CLEAN = """\
a/clean ────────────────────────────────────────────────────────────────────────
 CLEAN  detector spectral-llama: p = 0.31, above the false-positive rate 0.01
  Detector spectral-llama at a false-positive rate of 1 % did not flag it; that
  is no proof of innocence.
"""


def printed(scan: Scan, **console: object) -> str:
    file = io.StringIO()
    print_scan(scan, Console(file=file, **console))  # type: ignore[arg-type]
    return file.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


def test_clean_says_who_and_at_which_rate(scan_of: Callable[..., Scan]) -> None:
    assert render(scan_of("clean"), 80).startswith(CLEAN)


def test_unknown_says_why_and_is_not_green(scan_of: Callable[..., Scan]) -> None:
    coloured = printed(scan_of("minilm"), width=100, force_terminal=True, color_system="standard")
    assert "\x1b[1;33m UNKNOWN \x1b[0m" in coloured
    assert "\x1b[1;32m" not in coloured
    assert "does not cover it: its base model is a BERT" in words(render(scan_of("minilm")))


@pytest.mark.parametrize("width", [20, 40, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int, scan: Scan) -> None:
    lines = render(scan, width).splitlines()
    assert lines
    assert max(map(cell_len, lines)) <= width


def test_hostile_names_are_neither_markup_nor_escapes(scan: Scan) -> None:
    text = render(scan)
    assert all(character.isprintable() or character == "\n" for character in text)
    if any("[red]" in result.target for result in scan.results):
        assert "onerror=alert(1)>[red]\\x1b[31m\\u202egnp.exe" in words(text)


def test_ascii_terminal_gets_ascii(scan: Scan) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    print_scan(scan, Console(file=file, width=80))
    file.flush()
    assert raw.getvalue().isascii()


def test_heat_strip_has_a_cell_a_layer_and_marks_the_outlier(
    scan_of: Callable[..., Scan],
) -> None:
    lines = render(scan_of("llama")).splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("  self_attn.q_proj "))
    start = len("  self_attn.q_proj ")
    assert len(lines[at][start:]) == 32
    assert lines[at][start + 18] == "█"
    assert lines[at + 1].index("^") == start + 18


def test_long_stack_wraps_and_repeats_its_ruler(scan_of: Callable[..., Scan]) -> None:
    rulers = [
        line.split() for line in render(scan_of("deep"), 80).splitlines() if "layers " in line
    ]
    assert [ruler[1] for ruler in rulers if ruler[0] == "model.layers"] == ["0", "65", "130", "195"]


def test_layers_without_figures_have_no_strip(scan_of: Callable[..., Scan]) -> None:
    assert "Frobenius" not in render(scan_of("undefined"))


def test_worst_findings_first_and_the_rest_counted(scan_of: Callable[..., Scan]) -> None:
    scan = scan_of("llama")
    result = scan.results[0]
    many = [*result.findings, *scan_of("minilm").results[0].findings] * 3
    scan.results[0] = result.model_copy(update={"findings": many})
    text = render(scan)
    assert text.index("file.chat-template") < text.index("weights.outlier-module")
    assert "and 4 more, see --format json" in text


def test_many_adapters_end_in_counts(scan_of: Callable[..., Scan]) -> None:
    text = render(scan_of("clean", "unreadable", "minilm"))
    assert text.endswith("3 adapters: 1 backdoored, 1 unknown, 1 clean\n")


def test_one_adapter_needs_no_summary_and_none_is_said(scan_of: Callable[..., Scan]) -> None:
    assert "Summary" not in render(scan_of("clean"))
    assert render(scan_of()) == "No adapter was scanned.\n"


@pytest.mark.parametrize("label", list(Label))
def test_every_label_has_a_style_and_is_printed(label: Label, scan_of: Callable[..., Scan]) -> None:
    scan = scan_of("clean")
    verdict = scan.results[0].verdict.model_copy(update={"label": label})
    scan.results[0] = Result.model_validate(scan.results[0].model_dump() | {"verdict": verdict})
    assert f" {label.upper()} " in render(scan)


def test_a_proven_trigger_is_shown_at_work(scan_of: Callable[..., Scan]) -> None:
    text = words(render(scan_of("triggered")))
    assert "without the trigger" in text
    assert "it nak was late" in text
    assert "-> class 1" in text
    (result,) = scan_of("triggered").results
    assert result.trigger is not None
    result.trigger.confirmed = False
    assert "it nak was late" not in render(Scan(tool=scan_of().tool, results=[result]))
