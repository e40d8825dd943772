"""How alike two builds of one plan are: `python benchmarks/rebuilt.py OLD NEW`, two folders.

Of adapters that are in both: the share that is the same to the byte, how far attack success and
clean accuracy are apart, and which labels differ.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from peftguard.evaluation.metrics import rate
from peftguard.padbench.manifest import Row, read_manifest

FAR = 0.05
Pairs = Sequence[tuple[Row, Row]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args()
    old = {row.path: row for row in read_manifest(options.old)}
    pairs = [(old[row.path], row) for row in read_manifest(options.new) if row.path in old]
    print(f"{len(pairs)} adapters in both")
    for name in ("data_hash", "sha256", "label"):
        told(f"same {name}", [getattr(a, name) == getattr(b, name) for a, b in pairs])
    for name in ("asr", "clean_accuracy"):
        apart(name, pairs)
    for a, b in pairs:
        if a.label != b.label:
            print(f"{a.path}: {a.label}, ASR {a.asr} -> {b.label}, ASR {b.asr}")


def told(name: str, happened: Sequence[bool]) -> None:
    share = rate(np.array(happened)[None])
    print(f"{name}: {sum(happened)} ({share.value:.3f} [{share.low:.3f}, {share.high:.3f}])")


def apart(name: str, pairs: Pairs) -> None:
    values = [(getattr(a, name), getattr(b, name)) for a, b in pairs]
    far = np.array([abs(a - b) for a, b in values if a is not None and b is not None])
    more = (far > FAR).sum()
    print(f"{name} apart by: mean {far.mean():.4f}, largest {far.max():.3f}, {more} > {FAR}")


if __name__ == "__main__":
    main()
