"""How many small adapters a second does one core scan, once everything is warm?

Copies of the sample adapters' shape with weights of their own, and rank 16 ones, through
`peftguard.scan(cache=False)`, next to how fast their files can be read at all.

    python benchmarks/throughput.py --work /tmp/peftguard-bench --json throughput.json
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file

import peftguard
from machine import machine, machine_line
from synthetic import trained_B, write_config

LAYERS, WIDTH = 6, 384  # MiniLM, as in examples/adapters
TARGETS = ("query", "value")


@dataclass(slots=True)
class Pass:
    """One pass over all adapters of one rank; the best of the repeats."""

    rank: int
    what: str
    jobs: int
    seconds: float
    cpu_seconds: float
    adapters: int
    n_bytes: int

    @property
    def per_core(self) -> float:
        """Adapters a second of CPU."""
        return self.adapters / self.cpu_seconds


def main() -> None:
    options = _options()
    passes = []
    for rank in options.ranks:
        folders = small_adapters(
            options.work / f"minilm-r{rank}", rank, options.count, options.seed
        )
        passes.append(timed(rank, "read files", 1, folders, options.repeats, read_all))
        for jobs in options.jobs:
            passes.append(timed(rank, "scan", jobs, folders, options.repeats, scanner(jobs)))
    show(passes)
    if options.json:
        options.json.write_text(json.dumps(record(passes, options), indent=2), encoding="utf-8")


def small_adapters(root: Path, rank: int, count: int, seed: int) -> list[Path]:
    """`count` adapters of different weights, each in a folder of its own."""
    folders = [root / f"{index:04d}" for index in range(count)]
    for index, folder in enumerate(folders):
        if (folder / "adapter_config.json").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, rank, index])
        tensors = {}
        for layer in range(LAYERS):
            for target in TARGETS:
                stem = f"base_model.model.encoder.layer.{layer}.attention.self.{target}.lora_"
                A = rng.standard_normal((rank, WIDTH), dtype=np.float32)
                tensors[f"{stem}A.weight"] = A * np.float32(WIDTH**-0.5)
                tensors[f"{stem}B.weight"] = trained_B(rng, WIDTH, rank)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        write_config(folder, rank, TARGETS)
    return folders


def read_all(folders: list[Path]) -> None:
    for folder in folders:
        for path in folder.iterdir():
            path.read_bytes()


def scanner(jobs: int) -> Callable[[list[Path]], None]:
    def scan_all(folders: list[Path]) -> None:
        scan = peftguard.scan(*folders, cache=False, jobs=jobs)
        if len(scan.results) != len(folders):
            raise SystemExit(f"{len(scan.results)} results for {len(folders)} adapters")

    return scan_all


def timed(
    rank: int,
    what: str,
    jobs: int,
    folders: list[Path],
    repeats: int,
    run: Callable[[list[Path]], None],
) -> Pass:
    """Best wall time of `repeats` passes after one to warm up, and CPU time of the same pass."""
    n_bytes = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    run(folders[: 2 * jobs])
    best = (float("inf"), 0.0)
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), _cpu_seconds()
        run(folders)
        best = min(best, (time.perf_counter() - wall, _cpu_seconds() - cpu))
    return Pass(rank, what, jobs, *best, len(folders), n_bytes)


def _cpu_seconds() -> float:
    """Of this process and of finished children, so that worker processes count too."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def show(passes: list[Pass]) -> None:
    table = Table("rank", "what", "jobs", "adapters/s", "adapters/s/core", "MB/s", "ms each")
    for one in passes:
        table.add_row(
            str(one.rank),
            one.what,
            str(one.jobs),
            f"{one.adapters / one.seconds:.0f}",
            f"{one.per_core:.0f}",
            f"{one.n_bytes / one.seconds / 1e6:.1f}",
            f"{1000 * one.seconds / one.adapters:.2f}",
        )
    console = Console()
    console.print(table)
    console.print(machine_line(), highlight=False)


def record(passes: list[Pass], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "question": "small adapters scanned a second and core, warm",
        "seed": options.seed,
        "machine": machine(),
        "passes": [asdict(one) for one in passes],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the adapters (100 MB)")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
