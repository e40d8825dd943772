from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib import resources
from typing import Any, NoReturn

import jsonschema
import pytest

from peftguard.reports.json_report import SCHEMA_FILE, render, schema, schema_text
from peftguard.results import SCHEMA_VERSION, Scan


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


def strictly(text: str) -> Any:
    return json.loads(text, parse_constant=refuse)


def test_document_follows_the_published_schema(scan: Scan) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    assert list(validator.iter_errors(strictly(render(scan)))) == []


def test_document_reads_back_as_the_same_scan(scan: Scan) -> None:
    assert Scan.model_validate_json(render(scan)) == scan


def test_published_schema_is_the_model() -> None:
    file = resources.files("peftguard.reports") / "schema" / SCHEMA_FILE
    assert json.loads(file.read_text(encoding="utf-8")) == json.loads(schema_text())


def test_schema_names_its_version() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert SCHEMA_VERSION in schema()["title"]
    assert schema()["$id"].endswith(f"/scan-{SCHEMA_VERSION}.schema.json")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_a_number_is_null(value: float, scan_of: Callable[..., Scan]) -> None:
    scan = scan_of("llama")
    scan.results[0].verdict.score = value
    scan.results[0].modules[0].singular_values = [value]
    result = strictly(render(scan))["results"][0]
    assert result["verdict"]["score"] is None
    assert result["modules"][0]["singular_values"] == [None]


def test_half_a_surrogate_pair_does_not_stop_the_report(scan_of: Callable[..., Scan]) -> None:
    scan = scan_of("llama")
    scan.results[0].target = "a\ud800b"
    assert strictly(render(scan))["results"][0]["target"] == "a\\ud800b"


def test_document_is_ascii(scan: Scan) -> None:
    assert render(scan).isascii()
