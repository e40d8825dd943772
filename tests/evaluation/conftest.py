"""A toy benchmark: 96 adapters, everything crossed, backdoors that point one way an attack."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from peftguard.evaluation.zoo import Entry, Zoo
from peftguard.features.weights import Factors, Weights
from peftguard.padbench.manifest import FILE_NAME, Row, sha256_of, write_manifest

MODULES = ("layers.0.q_proj", "layers.0.v_proj")
WIDTH, RANK = 8, 2
DIRECTIONS = {"word": 0, "sentence": 1}


def toy_rows(*, splits: bool = True) -> list[Row]:
    """Attack x method x rank x dataset x label, three times; the third is held out."""
    rng = np.random.default_rng(0)
    rows = []
    axes = (DIRECTIONS, ("lora", "lora_plus"), (4, 8), ("sst2", "imdb"), range(3), (0, 1))
    for number, (attack, method, rank, dataset, turn, label) in enumerate(product(*axes)):
        split = "test" if turn == 2 else "train"
        rows.append(
            Row(
                path=f"a{number:03}",
                label="backdoored" if label else "benign",
                split=split if splits else None,
                split_group=f"{split}:{dataset}" if splits else None,
                base="toy",
                dataset=dataset,
                task="classification",
                attack=attack,
                trigger=[f"{split}-{turn}"],
                method=method,
                rank=rank,
                lr=float(rng.uniform(1e-4, 1e-3)),
                steps=int(rng.integers(100, 200)),
                data_hash=f"{number:064}",
            )
        )
    return rows


def toy_factors(row: Row, seed: int) -> dict[str, Factors]:
    """Noise, and for a backdoor one direction the attack shares (both share a little)."""
    rng = np.random.default_rng([seed, 7])
    found = {}
    for module in MODULES:
        B, A = (rng.normal(size=shape) for shape in ((WIDTH, RANK), (RANK, WIDTH)))
        if row.label != "benign":
            B[:, 0], A[0] = 0, 0
            B[DIRECTIONS.get(row.attack or "", 2), 0], B[7, 0] = 3, 0.5
            A[0, 3] = 3
        found[module] = Factors(B.astype(np.float32), A.astype(np.float32))
    return found


def toy_zoo(rows: list[Row]) -> Zoo:
    """The benchmark in memory."""
    entries = [
        Entry(row, Weights(row.path, toy_factors(row, seed), row.base, "LORA", row.rank))
        for seed, row in enumerate(rows)
    ]
    return Zoo("toy", "0" * 64, entries)


def write_adapter(folder: Path, factors: dict[str, Factors]) -> None:
    """A PEFT folder."""
    folder.mkdir(parents=True)
    tensors = {
        f"base_model.model.{module}.lora_{side}.weight": getattr(own, side)
        for module, own in factors.items()
        for side in "AB"
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "toy",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": ["q_proj", "v_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.fixture
def zoo() -> Zoo:
    """The benchmark in memory."""
    return toy_zoo(toy_rows())


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The benchmark on disk; read only."""
    root = tmp_path_factory.mktemp("toy") / "toy-zoo"
    rows = []
    for seed, row in enumerate(toy_rows()):
        write_adapter(root / row.path, toy_factors(row, seed))
        digest = sha256_of(root / row.path / "adapter_model.safetensors")
        rows.append(row.model_copy(update={"sha256": digest}))
    write_manifest(root / FILE_NAME, rows)
    return root


@pytest.fixture
def own(tmp_path: Path) -> Callable[[list[Row]], Path]:
    """Write a manifest of the given rows into a folder without adapters."""

    def write(rows: list[Row]) -> Path:
        write_manifest(tmp_path / FILE_NAME, rows)
        return tmp_path

    return write
