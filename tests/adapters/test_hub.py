"""Hub ids, against a hub that this test serves on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "c0ffee" + "0" * 34
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


class Hub(BaseHTTPRequestHandler):
    """The parts of the hub's HTTP interface that its client uses for a download."""

    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.server.asked.append(path)  # type: ignore[attr-defined]
        repo = next((name for name in REPOSITORIES if name in path), None)
        if repo is None:
            self.refuse("RepoNotFound")
        elif path.startswith("api/"):
            self.describe(repo, path)
        else:
            self.resolve(REPOSITORIES[repo], path.split("/resolve/", 1)[1].split("/", 1)[1])

    def describe(self, repo: str, path: str) -> None:
        files = REPOSITORIES[repo]
        if "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": oid(data)}
                for name, data in files.items()
            ]
            self.answer(json.dumps(tree).encode())
        elif "/revision/" in path and path.rsplit("/", 1)[1] not in (COMMIT, "main", "v1"):
            self.refuse("RevisionNotFound")
        else:
            siblings = [
                {"rfilename": name, "size": len(data), "blobId": oid(data)}
                for name, data in files.items()
            ]
            self.answer(json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())

    def resolve(self, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            self.refuse("EntryNotFound")
            return
        self.answer(files[name], {"ETag": f'"{oid(files[name])}"', "X-Repo-Commit": COMMIT})

    def refuse(self, code: str) -> None:
        self.answer(b"", {"X-Error-Code": code}, status=404)

    def answer(self, body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture(scope="module")
def hub() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def find(endpoint: str, home: Path, target: str, *, offline: bool = False, **limits: int) -> Any:
    """`find_sources` in a fresh process: the hub's client reads its endpoint when imported."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "NO_PROXY": "127.0.0.1",
    }
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE"):
        environment.pop(name, None)
    command = [sys.executable, "-c", CHILD, json.dumps([target, limits, offline])]
    done = subprocess.run(
        command, env=environment, cwd=home, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture
def endpoint(hub: ThreadingHTTPServer) -> str:
    hub.asked.clear()  # type: ignore[attr-defined]
    return f"http://127.0.0.1:{hub.server_address[1]}"


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
    endpoint: str, tmp_path: Path, hub: ThreadingHTTPServer
) -> None:
    online = find(endpoint, tmp_path, "hf://org/adapter@v1")
    hub.asked.clear()  # type: ignore[attr-defined]
    offline = find(endpoint, tmp_path, "hf://org/adapter@v1", offline=True)
    assert hub.asked == []  # type: ignore[attr-defined]
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
    endpoint: str, tmp_path: Path, hub: ThreadingHTTPServer
) -> None:
    answer = find(endpoint, tmp_path, "org/adapter", max_file_bytes=1000)
    assert answer["error"] == "LimitExceeded"
    assert "max_file_bytes" in answer["message"]
    assert not [path for path in hub.asked if "/resolve/" in path]  # type: ignore[attr-defined]
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
