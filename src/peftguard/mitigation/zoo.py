"""The adapters of a benchmark cleaned, and measured on its own held-out rows as it was built.

An adapter is done once its folder and its record are there, so that a run that was stopped can go
on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peftguard.adapters.adapter import open_adapter
from peftguard.adapters.filenames import printable
from peftguard.adversary.rows import measured_again
from peftguard.adversary.victims import as_built
from peftguard.errors import PeftGuardError, SettingsError
from peftguard.mitigation.benchmark import Benchmark, told_by
from peftguard.mitigation.method import Given
from peftguard.mitigation.record import Figures, Inputs, Mitigation, Use, read_record
from peftguard.mitigation.registry import AUTO, method_for, method_named
from peftguard.mitigation.rescan import may_be_used
from peftguard.mitigation.treatment import treat
from peftguard.mitigation.writing import staged
from peftguard.padbench.labels import benign_floors, label_row
from peftguard.padbench.manifest import FILE_NAME, Row, write_manifest

RECORDS = "mitigations"
"""Folder of the records, laid out as the adapters are."""

Watch = Callable[[int, int, str], None]
"""Called with (adapters done, adapters in all, what is next)."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What came of a benchmark.

    Args:
        before: rows of the adapters that were cleaned.
        after: their rows as measured now.
        records: what was done to each.
        left_out: why an adapter could not be cleaned, by its path.
    """

    before: list[Row]
    after: list[Row]
    records: list[Mitigation]
    left_out: dict[str, str]

    @property
    def use(self) -> Use:
        """Whether all of them may be used."""
        uses = {record.use for record in self.records}
        if "no" in uses:
            return "no"
        return "yes" if uses == {"yes"} and not self.left_out else "unknown"


def clean_zoo(
    benchmark: Benchmark,
    chosen: Sequence[Row],
    out: Path,
    method: str = AUTO,
    watch: Watch | None = None,
) -> Cleaned:
    """Clean adapters of a benchmark into a folder of the same layout, and write its manifest.

    Args:
        benchmark: where they are from.
        chosen: rows of it.
        out: what lies there of an earlier run of the same method and seed is kept.
        method: a name, or `auto`.
        watch: called before each adapter.

    Raises:
        SettingsError: there is no such method, or the disk refuses.
    """
    if method != AUTO:
        method_named(method)
    cleaned = Cleaned([], [], [], {})
    for number, row in enumerate(chosen):
        if watch is not None:
            watch(number, len(chosen), row.path)
        try:
            record = _record(benchmark, row, out, method)
        except PeftGuardError as error:
            cleaned.left_out[row.path] = str(error)
            continue
        cleaned.before.append(row)
        cleaned.after.append(_measured(row, record, benchmark))
        cleaned.records.append(record)
    if cleaned.after:
        write_manifest(out / FILE_NAME, cleaned.after)
    return cleaned


def _record(benchmark: Benchmark, row: Row, out: Path, method: str) -> Mitigation:
    """Of an earlier run, or new: the record is written last but for the folder's final name."""
    folder, path = _places(benchmark, row, out)
    if folder.is_dir() and (earlier := read_record(path)) is not None:
        return _checked(earlier, method, benchmark.seed, path)
    given = benchmark.given(row)
    chosen = method_for(method, given)
    with staged(folder) as fresh, open_adapter(benchmark.root / row.path) as original:
        treatment = treat(original, chosen, given, _inputs(row, given), fresh)
        after = benchmark.measure(treatment.after, row)
        use, why = may_be_used(None, after)
        found = {"before": told_by(row), "after": after, "use": use, "why": why}
        record = treatment.record.model_copy(update=found)
        path.parent.mkdir(parents=True, exist_ok=True)
        record.write(path)
    return record


def _places(benchmark: Benchmark, row: Row, out: Path) -> tuple[Path, Path]:
    """Where a cleaned adapter and its record go. A manifest is a stranger's: it names no way out.

    Raises:
        SettingsError: they would lie outside, or in the benchmark itself.
    """
    whole, home = out.resolve(), benchmark.root.resolve()
    folder, path = out / row.path, out / RECORDS / f"{row.path}.json"
    inside = folder.resolve().is_relative_to(whole) and path.resolve().is_relative_to(whole)
    if not inside or folder.resolve() == whole:
        raise SettingsError(f"{printable(row.path)}: the path leads out of the folder")
    if whole == home or whole.is_relative_to(home / row.path):
        raise SettingsError(f"{out}: is the benchmark itself; nothing is overwritten")
    return folder, path


def _checked(earlier: Mitigation, method: str, seed: int, path: Path) -> Mitigation:
    if method not in (AUTO, earlier.method) or earlier.seed != seed:
        raise SettingsError(
            f"{path}: was made by {earlier.method} with seed {earlier.seed}; give another --out"
        )
    return earlier


def _inputs(row: Row, given: Given) -> Inputs:
    return Inputs(
        base=row.base,
        data=row.dataset,
        n_rows=len(given.rows),
        trigger=None if given.trigger is None else list(given.trigger.phrases),
        target=None if given.trigger is None else given.trigger.target,
    )


def _measured(row: Row, record: Mitigation, benchmark: Benchmark) -> Row:
    """The row of the cleaned adapter: one that no longer fires is a dud, not benign."""
    after = record.after or Figures()
    counted = measured_again(row, after.accuracy, after.fires, after.without)
    new = counted.model_copy(update={"sha256": record.sha256})
    return label_row(new, as_built(benchmark.root, "fires_at"), benign_floors(benchmark.rows))
