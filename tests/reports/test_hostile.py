"""Scans of arbitrary strings and numbers: no report breaks, none lets a string act."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftguard.detectors.base import DetectorCard
from peftguard.features.profile import ModuleProfile
from peftguard.findings import RULES, Finding, Location, Severity
from peftguard.reports import html, json_report, sarif, text
from peftguard.results import (
    AdapterSummary,
    FileDigest,
    Label,
    PayloadSummary,
    Result,
    Scan,
    Tool,
    TriggerEvidence,
    Verdict,
)
from peftguard.trigger.report import Example

TRAPS = [
    "</script>",
    "<!--",
    "[bold]",
    "[x](y)",
    "{0}",
    "\x1b[2J",
    "\u202e",
    "\ud800",
    "",
    "..",
    "/",
]
STRINGS = st.text(st.characters(), max_size=12) | st.sampled_from(TRAPS)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
FIGURES = st.none() | NUMBERS
COUNTS = st.integers(0, 2**62)
DIGESTS = st.sampled_from(["ab" * 32, "cd" * 32])

PROFILES = st.builds(
    ModuleProfile,
    module=STRINGS,
    layer=st.none() | STRINGS | st.sampled_from(["h.0", "h.1", "h.10"]),
    role=STRINGS | st.sampled_from(["q", "v"]),
    shape=st.tuples(COUNTS, COUNTS),
    rank=COUNTS,
    scale=NUMBERS,
    exactness=STRINGS,
    singular_values=st.lists(NUMBERS, max_size=4),
    **{figure: FIGURES for figure in html.FIGURES},
)
ADAPTERS = st.builds(
    AdapterSummary,
    peft_type=STRINGS,
    base_model=st.none() | STRINGS,
    rank=st.none() | COUNTS,
    target_modules=st.lists(STRINGS, max_size=9),
    n_modules=COUNTS,
    n_parameters=COUNTS,
    format=STRINGS,
    container=STRINGS,
    dtypes=st.lists(STRINGS, max_size=2),
    scale=st.lists(NUMBERS, max_size=6),
    exactness=STRINGS,
    task_type=st.none() | STRINGS,
    peft_version=st.none() | STRINGS,
    payload=st.lists(
        st.builds(PayloadSummary, kind=STRINGS, n_tensors=COUNTS, n_parameters=COUNTS), max_size=2
    ),
)
CARDS = st.builds(
    DetectorCard,
    name=STRINGS,
    sha256=DIGESTS,
    coverage=STRINGS,
    n_calibration=COUNTS,
    true_positive_rate=FIGURES,
)
FINDINGS = st.builds(
    Finding,
    code=st.sampled_from(sorted(RULES)),
    severity=st.sampled_from(Severity),
    message=STRINGS,
    action=STRINGS,
    location=st.builds(
        Location,
        file=st.none() | STRINGS,
        module=st.none() | STRINGS,
        tensor=st.none() | STRINGS,
    ),
)
TRIGGERS = st.builds(
    TriggerEvidence,
    base=STRINGS,
    trigger=st.none() | STRINGS,
    target=st.none() | st.integers(0, 9),
    labels=st.dictionaries(st.integers(0, 9), STRINGS, max_size=2),
    success=FIGURES,
    controls=st.dictionaries(STRINGS, NUMBERS, max_size=2),
    p_value=FIGURES,
    confirmed=st.booleans(),
    examples=st.lists(
        st.builds(
            Example,
            before=STRINGS,
            after=STRINGS,
            label_before=st.integers(0, 9),
            label_after=st.integers(0, 9),
        ),
        max_size=2,
    ),
    searched=st.lists(STRINGS, max_size=2),
    seconds=NUMBERS,
)
RESULTS = st.builds(
    Result,
    target=STRINGS,
    sha256=st.none() | DIGESTS,
    adapter=st.none() | ADAPTERS,
    verdict=st.builds(
        Verdict,
        label=st.sampled_from(Label),
        reasons=st.lists(STRINGS, min_size=1, max_size=5),
        score=FIGURES,
        p_value=FIGURES,
        fpr=FIGURES,
        detector=st.none() | CARDS,
    ),
    findings=st.lists(FINDINGS, max_size=3),
    timing_s=NUMBERS,
    files=st.lists(st.builds(FileDigest, path=STRINGS, n_bytes=COUNTS, sha256=DIGESTS), max_size=2),
    modules=st.lists(PROFILES, max_size=4),
    trigger=st.none() | TRIGGERS,
)
SCANS = st.builds(Scan, tool=st.just(Tool(version="1.2.3")), results=st.lists(RESULTS, max_size=2))

few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


@few
@given(SCANS, st.integers(20, 140))
def test_text_holds_nothing_that_acts(scan: Scan, width: int) -> None:
    shown = text.render(scan, width)
    assert all(character.isprintable() or character == "\n" for character in shown)


@few
@given(SCANS)
def test_json_is_strict(scan: Scan) -> None:
    document = json.loads(json_report.render(scan), parse_constant=refuse)
    assert len(document["results"]) == len(scan.results)
    assert json.dumps(document, ensure_ascii=False).encode()


@few
@given(scan=SCANS)
def test_sarif_follows_the_schema(sarif_errors: Callable[[str], list[str]], scan: Scan) -> None:
    assert sarif_errors(sarif.render(scan)) == []


@few
@given(SCANS)
def test_html_data_cannot_leave_its_block(scan: Scan) -> None:
    page = html.render(scan)
    assert page.count("</script>") == 2
    assert page.count("<!--") == 0


@few
@given(SCANS)
def test_bom_is_valid(scan: Scan) -> None:
    schema = pytest.importorskip("cyclonedx.schema")
    validation = pytest.importorskip("cyclonedx.validation.json")
    from peftguard.reports import cyclonedx

    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(cyclonedx.render(scan)) is None
