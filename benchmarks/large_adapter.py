"""How much memory does a 4 GB adapter take to scan, and how long?

One process as a user starts it: wall time and peak resident size. The adapter has 128 layers
of q, k, v, o projections (4096 x 4096) at rank 512 in fp16: 512 modules, 4.3 GB.

    python benchmarks/large_adapter.py --work /tmp/peftguard-bench --json large.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from safetensors.numpy import save_file

from machine import machine, machine_line
from scan_speed import SCAN, Timing, commands
from synthetic import WIDTH, trained_B, write_config

LAYERS, RANK, SEED = 128, 512, 0
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


def build(folder: Path) -> None:
    """Write the adapter unless it is there; its modules share one pair of factors, rescaled."""
    if (folder / "adapter_config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    A, B = rng.uniform(-1, 1, (RANK, WIDTH)) * WIDTH**-0.5, trained_B(rng, WIDTH, RANK)
    tensors = {}
    for layer in range(LAYERS):
        for target in TARGETS:
            stem = f"base_model.model.model.layers.{layer}.self_attn.{target}.lora_"
            tensors[f"{stem}A.weight"] = (A * rng.uniform(0.5, 2)).astype("f2")
            tensors[f"{stem}B.weight"] = (B * rng.uniform(0.5, 2)).astype("f2")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    write_config(folder, RANK, TARGETS)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only-build", action="store_true", help="write the adapter and stop")
    options = parser.parse_args()
    if options.only_build:
        build(options.work / "large-r512")
        return
    # By a process of its own: a child's peak counts what its parent holds.
    command = [sys.executable, __file__, "--work", str(options.work), "--only-build"]
    subprocess.run(command, check=True)
    path = options.work / "large-r512" / "adapter_model.safetensors"
    timing = Timing(RANK, SCAN)
    timing.run(commands(path, None)[SCAN])
    size = path.stat().st_size
    console = Console()
    console.print(machine_line())
    console.print(
        f"{size / 1e9:.2f} GB, {LAYERS * len(TARGETS)} modules: "
        f"{timing.wall_s[0]:.1f} s, peak {timing.peak_mb:.0f} MB"
    )
    if options.json:
        record = {"seed": SEED, "n_bytes": size, "machine": machine(), **asdict(timing)}
        options.json.write_text(json.dumps(record, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
