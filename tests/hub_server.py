"""A hub on the loopback interface: the parts of its HTTP interface that a download uses."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34

Repositories = Mapping[str, Mapping[str, bytes]]


class HubServer(ThreadingHTTPServer):
    """Serves repositories, and remembers what was asked and how much was sent."""

    def __init__(self, repositories: Repositories) -> None:
        super().__init__(("127.0.0.1", 0), Hub)
        self.repositories = repositories
        self.asked: list[str] = []
        self.sent: dict[str, int] = {}
        self.ranges = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(repositories: Repositories) -> Iterator[HubServer]:
    with HubServer(repositories) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def environment(endpoint: str, home: Path) -> dict[str, str]:
    """Of a fresh process, since the hub's client reads its endpoint when imported."""
    found = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "XDG_CACHE_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "NO_PROXY": "127.0.0.1",
    }
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE"):
        found.pop(name, None)
    return found


def oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """One request."""

    server: HubServer

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.server.asked.append(path)
        repo = next((name for name in self.server.repositories if name in path), None)
        if repo is None:
            self.refuse("RepoNotFound")
        elif path.startswith("api/"):
            self.describe(repo, path)
        else:
            self.resolve(repo, path.split("/resolve/", 1)[1].split("/", 1)[1])

    def describe(self, repo: str, path: str) -> None:
        files = self.server.repositories[repo]
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

    def resolve(self, repo: str, name: str) -> None:
        files = self.server.repositories[repo]
        if name not in files:
            self.refuse("EntryNotFound")
            return
        body, status = files[name], 200
        headers = {"ETag": f'"{oid(body)}"', "X-Repo-Commit": COMMIT}
        asked = self.headers.get("Range")
        if asked and self.server.ranges:
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            body, status = body[first : last + 1], 206
        if self.command == "GET":
            self.server.sent[name] = self.server.sent.get(name, 0) + len(body)
        self.answer(body, headers, status)

    def refuse(self, code: str) -> None:
        self.answer(b"", {"X-Error-Code": code}, status=404)

    def answer(
        self, body: bytes, headers: Mapping[str, str] | None = None, status: int = 200
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
