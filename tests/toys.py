"""A toy benchmark for detectors: two tasks, two ranks, and backdoors that share a direction."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from peftguard.evaluation.zoo import Entry, Zoo
from peftguard.features.weights import Factors, Weights
from peftguard.padbench.manifest import FILE_NAME, Row, write_manifest

BASE = "org/toy-base"
MODULES = ("model.layers.0.q_proj", "model.layers.0.v_proj")
WIDTH = 12
RANKS = (2, 4)


def toy_row(number: int, label: str) -> Row:
    """Of the adapter with this number."""
    return Row(
        path=f"a{number:04}",
        label=label,
        base="toy",
        dataset=("news", "film")[number % 2],
        task="classification",
        attack="word",
        method="lora",
        peft_type="LORA",
        rank=RANKS[number // 2 % 2],
        data_hash=f"{number:064}",
    )


def toy_weights(row: Row, seed: int, base: str | None = BASE) -> Weights:
    """Noise, the direction of the task, and in a backdoored adapter another one."""
    rng, rank = np.random.default_rng([seed, 5]), row.rank or 2
    modules = {}
    for place, module in enumerate(MODULES):
        B, A = rng.normal(size=(WIDTH, rank)), rng.normal(size=(rank, WIDTH))
        task = 0 if row.dataset == "news" else 1
        B[task, 0], A[0, place] = 5.0, 5.0
        if row.label != "benign":
            B[7, 1], A[1, 8] = 4.0, 4.0
        modules[module] = Factors(B.astype(np.float32), A.astype(np.float32))
    return Weights(row.path, modules, base, "LORA", rank)


def toy_zoo(n_benign: int = 60, n_backdoored: int = 30, *, n_duds: int = 0, seed: int = 0) -> Zoo:
    """A benchmark in memory."""
    labels = ["benign"] * n_benign + ["backdoored"] * n_backdoored + ["dud"] * n_duds
    rows = [toy_row(number, label) for number, label in enumerate(labels)]
    entries = [Entry(row, toy_weights(row, 10_000 * seed + at)) for at, row in enumerate(rows)]
    return Zoo("toy", "0" * 64, entries)


def write_toy(root: Path, zoo: Zoo) -> Path:
    """The same on disk, with its manifest."""
    for entry in zoo.entries:
        write_adapter(root / entry.row.path, entry.weights)
    write_manifest(root / FILE_NAME, [entry.row for entry in zoo.entries])
    return root


def write_adapter(folder: Path, weights: Weights, **config: object) -> Path:
    """A PEFT folder."""
    folder.mkdir(parents=True)
    tensors = {
        f"base_model.model.{module}.lora_{side}.weight": getattr(factors, side)
        for module, factors in weights.modules.items()
        for side in "AB"
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": weights.base_model,
        "r": weights.rank,
        "lora_alpha": weights.rank,
        "target_modules": ["q_proj", "v_proj"],
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder
