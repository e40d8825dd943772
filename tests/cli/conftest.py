"""The command, run as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("scan", path, ...)` in an empty folder; `path` may add folders to Python's path."""

    def call(*words: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "working-folder"
        folder.mkdir(exist_ok=True)
        variables = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
        if path is not None:
            variables["PYTHONPATH"] = str(path)
        return subprocess.run(
            [sys.executable, "-m", "peftguard", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=folder,
            env=variables,
            timeout=120,
            check=False,
        )

    return call
