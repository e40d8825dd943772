"""Hub ids, against a hub that this test serves on the loopback interface."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.hub_server import COMMIT, HubServer, environment, serving

WEIGHTS = b"w" * 2000
ADAPTER = {
    "adapter_config.json": b'{"peft_type": "LORA"}',
    "adapter_model.safetensors": WEIGHTS,
    "adapter_model.bin": b"b" * 1_100_000,
    "checkpoint-1/adapter_config.json": b"{}",
    "checkpoint-1/adapter_model.safetensors": b"1",
    "checkpoint-1/optimizer.pt": b"o" * 1_100_000,
    "modeling.py": b"print()",
    "payload.zip": b"z" * 1_100_000,
    "tokenizer.json": b"t" * 1_100_000,
    "README.md": b"# model",
}
REPOSITORIES: dict[str, dict[str, bytes]] = {
    "org/adapter": ADAPTER,
    "org/model": {"config.json": b"{}", "model.safetensors": b"w"},
    "org/single": {"style.safetensors": b"s", "model.safetensors": b"m", "[x] y.json": b"{}"},
    "org/escape": {"../../adapter_model.safetensors": b"e"},
}

CHILD = """
import json, sys
from peftguard.adapters.sources import find_sources
from peftguard.errors import InputError
from peftguard.limits import Limits

target, limits, offline = json.loads(sys.argv[1])
try:
    sources = list(find_sources(target, limits=Limits(**limits), offline=offline))
except InputError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
else:
    print(json.dumps([
        {
            "target": source.target,
            "revision": source.origin.revision,
            "files": sorted(source.relative(p) for p in (*source.weights, *source.beside)),
            "findings": {f.code: f.message for f in source.findings},
        }
        for source in sources
    ]))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with serving(REPOSITORIES) as server:
        yield server


def find(endpoint: str, home: Path, target: str, *, offline: bool = False, **limits: int) -> Any:
    """`find_sources` in a fresh process."""
    command = [sys.executable, "-c", CHILD, json.dumps([target, limits, offline])]
    done = subprocess.run(
        command,
        env=environment(endpoint, home),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture
def endpoint(hub: HubServer) -> str:
    hub.asked.clear()
    return hub.endpoint


def test_only_adapter_files_come_and_the_rest_is_named(endpoint: str, tmp_path: Path) -> None:
    main, checkpoint = find(endpoint, tmp_path, "org/adapter")
    assert main["target"] == "org/adapter"
    assert checkpoint["target"] == "org/adapter/checkpoint-1"
    assert main["revision"] == COMMIT
    assert main["files"] == ["adapter_model.safetensors", "modeling.py"]
    assert checkpoint["files"] == ["adapter_model.safetensors"]
    assert {code: message.split(": ")[1] for code, message in main["findings"].items()} == {
        "file.unread-weights": "adapter_model.bin",
        "file.pickle": "checkpoint-1/optimizer.pt",
        "file.code-beside": "payload.zip",
        "file.tokenizer": "tokenizer.json",
    }
    assert checkpoint["findings"] == {}


def test_offline_takes_the_cache_and_asks_nobody(
    endpoint: str, tmp_path: Path, hub: HubServer
) -> None:
    online = find(endpoint, tmp_path, "hf://org/adapter@v1")
    hub.asked.clear()
    offline = find(endpoint, tmp_path, "hf://org/adapter@v1", offline=True)
    assert hub.asked == []
    assert [source["files"] for source in offline] == [source["files"] for source in online]
    assert offline[0]["revision"] == COMMIT


def test_a_repository_of_single_files(endpoint: str, tmp_path: Path) -> None:
    (source,) = find(endpoint, tmp_path, "org/single")
    assert source["files"] == ["[x] y.json", "model.safetensors", "style.safetensors"]
    assert source["target"] == "org/single/style.safetensors"


@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        ("org/nothing", "TargetNotFound", "no such repository"),
        ("org/adapter@v9", "TargetNotFound", "no such revision"),
        ("org/model", "TargetNotFound", "no adapter weights"),
        ("org/escape", "MalformedFile", "cannot be trusted"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    endpoint: str, tmp_path: Path, target: str, error: str, says: str
) -> None:
    answer = find(endpoint, tmp_path, target)
    assert answer["error"] == error
    assert says in answer["message"]
    assert "\n" not in answer["message"]


def test_sizes_are_checked_before_anything_is_fetched(
    endpoint: str, tmp_path: Path, hub: HubServer
) -> None:
    answer = find(endpoint, tmp_path, "org/adapter", max_file_bytes=1000)
    assert answer["error"] == "LimitExceeded"
    assert "max_file_bytes" in answer["message"]
    assert not [path for path in hub.asked if "/resolve/" in path]
    assert find(endpoint, tmp_path, "org/adapter", max_files=3)["error"] == "LimitExceeded"


def test_an_unreachable_hub(tmp_path: Path) -> None:
    answer = find("http://127.0.0.1:9", tmp_path, "org/adapter")
    assert answer["error"] == "TargetNotFound"
    assert "hub could not be read" in answer["message"]


def test_an_empty_cache(endpoint: str, tmp_path: Path) -> None:
    answer = find(endpoint, tmp_path, "org/adapter", offline=True)
    assert "not in the local cache" in answer["message"]


def test_a_local_path_wins_over_a_hub_id(endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "org" / "adapter").mkdir(parents=True)
    answer = find(endpoint, tmp_path, "org/adapter")
    assert "no adapter in this folder" in answer["message"]
