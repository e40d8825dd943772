"""How long does it take to scan one adapter, start-up included, and next to what else?

Whole cold processes, taken in turns so that a busy machine is busy for all; median of several runs
with the peak memory of the process. Files are in the page cache: disks are not compared.

    python benchmarks/scan_speed.py --work /tmp/peftguard-bench \
        --rival-command "adaptersentry scan {file} --format json" --json speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from machine import machine, machine_line

SCAN = "peftguard scan"
HASH = "import hashlib,sys; print(hashlib.file_digest(open(sys.argv[1],'rb'),'sha256').hexdigest())"
READ = "import sys; f = open(sys.argv[1], 'rb', 0); b = bytearray(1 << 20)\nwhile f.readinto(b): 0"


@dataclass(slots=True)
class Timing:
    """Runs of one command on one file: wall and CPU seconds, largest resident size in MB."""

    rank: int
    what: str
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    def run(self, command: list[str]) -> None:
        """One cold process; fails loudly if the command does."""
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        _, status, usage = os.wait4(process.pid, 0)
        self.wall_s.append(time.perf_counter() - start)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1, 3):  # verdicts; 2 and signals are failures
            raise SystemExit(f"{shlex.join(command)}: {process.stderr.read().decode()[-500:]}")
        process.stderr.close()
        self.cpu_s.append(usage.ru_utime + usage.ru_stime)
        self.peak_mb = max(self.peak_mb, usage.ru_maxrss / 1024)


def main() -> None:
    options = _options()
    timings: list[Timing] = []
    for rank in options.ranks:
        file = made_adapter(options.work / f"llama2-7b-qv-r{rank}", rank, options.seed)
        timings += measure(rank, commands(file, options.rival_command), options.runs)
        if options.paper:
            timings += measure(rank, {"PEFTGuard (paper)": paper_command(file)}, 1)
    show(timings, options.rival_command)
    if options.json:
        options.json.write_text(json.dumps(record(timings, options), indent=2), encoding="utf-8")


def made_adapter(folder: Path, rank: int, seed: int) -> Path:
    """The adapter, written by a process of its own: a child's peak counts what its parent holds."""
    script = Path(__file__).with_name("synthetic.py")
    subprocess.run([sys.executable, script, folder, str(rank), str(seed)], check=True)
    return folder / "adapter_model.safetensors"


def commands(file: Path, rival: str | None) -> dict[str, list[str]]:
    """What is compared, by name."""
    scan = [sys.executable, "-m", "peftguard", "scan", str(file.parent)]
    named = {SCAN: [*scan, "--no-cache", "--format", "json"]}
    if rival:
        named[Path(rival.split()[0]).name] = shlex.split(rival.format(file=file))
    return named | {
        "sha256 (hashlib)": [sys.executable, "-c", HASH, str(file)],
        "sha256sum": ["sha256sum", str(file)],
        "read the file": [sys.executable, "-c", READ, str(file)],
        "start numpy": [sys.executable, "-c", "import numpy"],
    }


def paper_command(file: Path) -> list[str]:
    """The published detector's own computation, in a process of its own: 16 GB."""
    return [sys.executable, str(Path(__file__).with_name("paper_detector.py")), str(file)]


def measure(rank: int, named: dict[str, list[str]], runs: int) -> list[Timing]:
    """Every command in turn, `runs` times over."""
    timings = {what: Timing(rank, what) for what in named}
    for _ in range(runs):
        for what, command in named.items():
            timings[what].run(command)
    return list(timings.values())


def show(timings: list[Timing], rival: str | None) -> None:
    """The table, with every time also as a multiple of the scan's."""
    table = Table("rank", "what", "median s", "min - max s", "CPU s", "peak MB", "x scan")
    scans = {timing.rank: median(timing.wall_s) for timing in timings if timing.what == SCAN}
    for timing in timings:
        middle = median(timing.wall_s)
        table.add_row(
            str(timing.rank),
            timing.what,
            f"{middle:.3f}",
            f"{min(timing.wall_s):.3f} - {max(timing.wall_s):.3f}",
            f"{median(timing.cpu_s):.3f}",
            f"{timing.peak_mb:.0f}",
            f"{middle / scans[timing.rank]:.2f}",
        )
    console = Console()
    console.print(table)
    console.print(machine_line(), highlight=False)
    if not rival:
        console.print("No --rival-command given: no other scanner timed.")


def record(timings: list[Timing], options: argparse.Namespace) -> dict[str, Any]:
    """Everything needed to read the numbers later."""
    return {
        "question": "seconds to scan one Llama-2-7B q+v adapter, whole process",
        "seed": options.seed,
        "runs": options.runs,
        "rival_command": options.rival_command,
        "machine": machine(),
        "timings": [asdict(timing) for timing in timings],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the adapters (300 MB)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 256])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rival-command", help="another scanner's command; {file} is the adapter")
    parser.add_argument("--paper", action="store_true", help="also the published detector, once")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
