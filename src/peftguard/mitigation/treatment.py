"""One method on one adapter: read, changed, written, read back."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from peftguard import __version__
from peftguard.adapters.adapter import Adapter, open_adapter
from peftguard.adapters.filenames import WEIGHTS
from peftguard.adversary.arithmetic import change
from peftguard.evaluation.run import library_versions
from peftguard.mitigation.factored import Factored, read_factored
from peftguard.mitigation.method import Given, Method
from peftguard.mitigation.record import Inputs, Mitigation
from peftguard.mitigation.writing import settings_of, write_adapter
from peftguard.padbench.manifest import sha256_of


@dataclass(frozen=True, slots=True, eq=False)
class Treatment:
    """An adapter before and after, both as their files have it, and the record of it so far."""

    before: Factored
    after: Factored
    record: Mitigation


def treat(
    original: Adapter, method: Method, given: Given, inputs: Inputs, folder: Path
) -> Treatment:
    """Clean an open adapter and write the result.

    Args:
        original: its files are read only.
        method: all that it needs is given.
        given: what there is to clean with.
        inputs: the same, for the record.
        folder: to write into; is there, and empty.

    Raises:
        UnsupportedAdapter: the adapter is not of a kind that can be cleaned, or not so.
        MalformedFile: its tensors do not fit each other, or the result does not fit the file.
        OSError: the disk refuses.
    """
    before = read_factored(original)
    start = time.perf_counter()
    cleaned = method.apply(before, given)
    seconds = time.perf_counter() - start
    config, dropped = settings_of(original)
    write_adapter(cleaned, original, config, folder)
    with open_adapter(folder) as written:
        after = read_factored(written)
    record = Mitigation(
        tool_version=__version__,
        versions=library_versions(),
        original=original.source.target,
        original_sha256=sha256_of(original.source.weights[0]),
        sha256=sha256_of(folder / WEIGHTS),
        method=method.name,
        parameters=method.parameters,
        seed=given.seed,
        inputs=inputs,
        dropped=dropped,
        seconds=round(seconds, 2),
        change=round(change(before, [after]), 4),
    )
    return Treatment(before, after, record)
