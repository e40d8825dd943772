"""Small PEFT adapters on disk, and the command as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from safetensors.numpy import save_file

# On a loaded machine the first draw may wait for imports: slowness is not what these tests are for.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")

# Tiny tensors: threads that wait for one another cost more than they give, above all where several
# test processes share the cores. Read when torch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CONFIG = {
    "peft_type": "LORA",
    "base_model_name_or_path": "org/base",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "v_proj"],
    "task_type": "CAUSAL_LM",
    "peft_version": "0.21.2",
}
PREFIX = "base_model.model.model.layers"

MakeAdapter = Callable[..., Path]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the results that another one, or the user, has cached."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture
def tensors() -> Callable[..., dict[str, np.ndarray]]:
    """Make the tensors of a LoRA adapter by name."""
    return _tensors


@pytest.fixture
def make_adapter(tmp_path: Path) -> MakeAdapter:
    """Write a PEFT folder: `make_adapter(name, config={...}, **tensors)`; None drops a tensor."""

    def make(
        name: str = "adapter",
        /,
        config: dict[str, Any] | None = None,
        seed: int = 0,
        dtype: Any = np.float32,
        **changes: np.ndarray | None,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        state = {**_tensors(seed), **{k.replace("__", "."): v for k, v in changes.items()}}
        kept = {key: array.astype(dtype) for key, array in state.items() if array is not None}
        save_file(kept, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        text = json.dumps({**CONFIG, **(config or {})})
        (folder / "adapter_config.json").write_text(text)
        return folder

    return make


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


def _tensors(seed: int = 0, *, layers: int = 3, hidden: int = 24, r: int = 4) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        f"{PREFIX}.{layer}.self_attn.{role}.lora_{factor}.weight": random.normal(
            size=(r, hidden) if factor == "A" else (hidden, r)
        ).astype(np.float32)
        for layer in range(layers)
        for role in ("q_proj", "v_proj")
        for factor in "AB"
    }
