from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from peftguard.errors import MissingExtra
from peftguard.reports.cyclonedx import render
from peftguard.results import Scan

schema = pytest.importorskip("cyclonedx.schema")
validation = pytest.importorskip("cyclonedx.validation.json")


def bom_of(scan: Scan) -> dict[str, Any]:
    return json.loads(render(scan))  # type: ignore[no-any-return]


def component(bom: dict[str, Any], ref: str) -> dict[str, Any]:
    return next(each for each in bom["components"] if each["bom-ref"] == ref)


def statements(part: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in part["properties"]}


def test_bom_is_valid_by_the_strict_schema(scan: Scan) -> None:
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(render(scan)) is None


def test_bom_is_the_same_but_for_serial_number_and_time(scan: Scan) -> None:
    first, second = bom_of(scan), bom_of(scan)
    for bom in (first, second):
        del bom["serialNumber"], bom["metadata"]["timestamp"]
    assert first == second


def test_adapter_is_a_model_with_files_verdict_and_base(scan_of: Callable[..., Scan]) -> None:
    bom = bom_of(scan_of("llama"))
    adapter = component(bom, "adapter-0")
    assert adapter["type"] == "machine-learning-model"
    assert adapter["hashes"] == [{"alg": "SHA-256", "content": "12" * 32}]
    assert [file["name"] for file in adapter["components"]] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    said = statements(adapter)
    assert said["peftguard:verdict"] == "suspicious"
    assert said["peftguard:finding:file.chat-template"].startswith("medium: ")
    assert component(bom, "base-model-0")["name"] == "meta-llama/Llama-2-7b-hf"
    assert {"ref": "adapter-0", "dependsOn": ["base-model-0"]} in bom["dependencies"]


def test_base_model_is_marked_as_a_claim(scan_of: Callable[..., Scan]) -> None:
    base = component(bom_of(scan_of("minilm")), "base-model-0")
    assert statements(base) == {"peftguard:claim": "named by the adapter, not checked"}


def test_joint_hash_of_shards_is_not_given_as_a_files_hash(scan_of: Callable[..., Scan]) -> None:
    scan = scan_of("clean")
    scan.results[0].sha256 = "ff" * 32
    adapter = component(bom_of(scan), "adapter-0")
    assert "hashes" not in adapter
    assert statements(adapter)["peftguard:sha256"] == "ff" * 32


def test_no_adapter_is_lost(scan_of: Callable[..., Scan]) -> None:
    bom = bom_of(scan_of("clean", "clean", "experts"))
    refs = {each["bom-ref"] for each in bom["components"]}
    assert refs == {"adapter-0", "adapter-1", "adapter-2", "base-model-0"}


def test_without_the_library_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, scan_of: Callable[..., Scan]
) -> None:
    monkeypatch.setitem(sys.modules, "cyclonedx.output.json", None)
    with pytest.raises(MissingExtra, match=r"pip install 'peftguard\[cyclonedx\]'"):
        render(scan_of())
