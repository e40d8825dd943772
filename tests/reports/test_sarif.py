from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from peftguard.findings import RULES, found
from peftguard.reports.sarif import render
from peftguard.reports.uris import uri_of
from peftguard.results import Result, Scan

URI_REFERENCE = re.compile(r"(?:[A-Za-z0-9\-._~:/@!$&'()*+,;=]|%[0-9A-F]{2})+")


def run_of(scan: Scan) -> dict[str, Any]:
    (run,) = json.loads(render(scan))["runs"]
    return run  # type: ignore[no-any-return]


def uri(result: dict[str, Any]) -> str:
    (location,) = result["locations"]
    return location["physicalLocation"]["artifactLocation"]["uri"]  # type: ignore[no-any-return]


def test_log_follows_the_official_schema(
    scan: Scan, sarif_errors: Callable[[str], list[str]]
) -> None:
    assert sarif_errors(render(scan)) == []


def test_every_finding_and_every_verdict_but_clean_is_a_result(
    scan_of: Callable[..., Scan],
) -> None:
    results = run_of(scan_of("llama", "minilm", "unreadable", "clean"))["results"]
    assert [result["ruleId"] for result in results] == [
        "verdict.suspicious",
        "weights.outlier-module",
        "file.chat-template",
        "verdict.unknown",
        "file.tokenizer",
        "payload.classifier-head",
        "verdict.backdoored",
        "file.executes-code",
    ]
    levels = [result["level"] for result in results]
    assert levels == ["error", "note", "warning", "warning", "note", "note", "error", "error"]


def test_a_proven_trigger_is_critical_and_says_which(scan_of: Callable[..., Scan]) -> None:
    results = run_of(scan_of("triggered"))["results"]
    assert [result["ruleId"] for result in results] == ["verdict.backdoored", "trigger.confirmed"]
    assert {result["properties"]["severity"] for result in results} == {"critical"}
    assert all("'nak' on minilm" in result["message"]["text"] for result in results)


def test_every_rule_is_described_and_every_result_points_to_its_own(scan: Scan) -> None:
    run = run_of(scan)
    rules = run["tool"]["driver"]["rules"]
    assert {rule["id"] for rule in rules} >= set(RULES)
    assert all(0 <= float(rule["properties"]["security-severity"]) <= 10 for rule in rules)
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]


def test_locations_are_encoded_and_indexed(scan: Scan) -> None:
    run = run_of(scan)
    for result in run["results"]:
        (location,) = result["locations"]
        place = location["physicalLocation"]["artifactLocation"]
        assert URI_REFERENCE.fullmatch(place["uri"])
        assert run["artifacts"][place["index"]]["location"]["uri"] == place["uri"]


def test_artifacts_have_hashes(scan_of: Callable[..., Scan]) -> None:
    weights, config = run_of(scan_of("minilm"))["artifacts"]
    assert weights["location"]["uri"] == "adapters/minilm-sst2/adapter_model.safetensors"
    assert weights["hashes"] == {"sha-256": "12" * 32}
    assert config["length"] == 712


def test_module_is_a_logical_location(scan_of: Callable[..., Scan]) -> None:
    (_, outlier, _) = run_of(scan_of("llama"))["results"]
    assert outlier["locations"][0]["logicalLocations"] == [
        {"fullyQualifiedName": "model.layers.18.self_attn.q_proj", "kind": "module"}
    ]


def test_fingerprints_differ_and_outlive_a_change_of_words(scan_of: Callable[..., Scan]) -> None:
    scan = scan_of("hostile", "llama")
    before = [result["partialFingerprints"]["findingHash/v1"] for result in run_of(scan)["results"]]
    assert len(set(before)) == len(before)
    finding = scan.results[1].findings[0].model_copy(update={"message": "other words"})
    scan.results[1].findings[0] = finding
    after = [result["partialFingerprints"]["findingHash/v1"] for result in run_of(scan)["results"]]
    assert after == before


def test_text_of_a_stranger_is_no_link_and_no_placeholder(scan_of: Callable[..., Scan]) -> None:
    for result in run_of(scan_of("hostile"))["results"]:
        text = result["message"]["text"]
        assert "](" not in text
        assert "{" not in text.replace("{{", "")


def test_an_internal_error_is_a_failed_run(scan_of: Callable[..., Scan]) -> None:
    scan = scan_of("clean")
    assert run_of(scan)["invocations"] == [{"executionSuccessful": True}]
    scan.results[0].findings.append(found("error.internal", "KeyError: 'x'"))
    (invocation,) = run_of(scan)["invocations"]
    assert invocation["executionSuccessful"] is False
    assert invocation["toolExecutionNotifications"][0]["message"]["text"] == "KeyError: 'x'"


@pytest.mark.parametrize(
    ("target", "file", "expected"),
    [
        ("a b", "adapter_config.json", "a%20b/adapter_config.json"),
        ("x/adapter_model.safetensors", "adapter_config.json", "x/adapter_config.json"),
        ("x/adapter_model.safetensors", None, "x/adapter_model.safetensors"),
        ("adapter_model.safetensors", "adapter_model.safetensors", "adapter_model.safetensors"),
        ("/srv/a#1", "w.bin", "file:///srv/a%231/w.bin"),
        ("missing", "missing", "missing"),
        ("a", "\ud800", "a/%ED%A0%80"),
        ("../a", "sub/ü.py", "../a/sub/%C3%BC.py"),
    ],
)
def test_uri_is_relative_as_the_target_was_given(
    target: str, file: str | None, expected: str, scan_of: Callable[..., Scan]
) -> None:
    result: Result = scan_of("clean").results[0]
    result.target = target
    assert uri_of(result, file) == expected


def test_file_from_the_hub_is_given_at_its_commit(scan_of: Callable[..., Scan]) -> None:
    results = run_of(scan_of("llama"))["results"]
    commit = "5d602fdb" * 5
    base = f"https://huggingface.co/someone/llama-chat-lora/blob/{commit}"
    assert uri(results[2]) == f"{base}/tokenizer_config.json"
