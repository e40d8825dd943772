"""A labelled benchmark in memory: every adapter's row and weights, checked against each other."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peftguard.errors import InputError, MalformedFile, PeftGuardError, TargetNotFound
from peftguard.evaluation.twins import twins_of
from peftguard.features.weights import Weights, weights_of
from peftguard.limits import Limits
from peftguard.padbench.manifest import FILE_NAME, Row, read_manifest, sha256_of

Watch = Callable[[int, int, str], None]
"""Called with (done, all, name of what is next)."""

WILD = "wild"
"""Split of adapters that are no part of the benchmark."""
FACTORS = ("attack", "method", "rank", "dataset", "task", "base")
"""What figures are grouped by."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One adapter of a benchmark: what the manifest says of it, and its weights."""

    row: Row
    weights: Weights

    @property
    def positive(self) -> bool:
        """True for a backdoor that fires, and for nothing else."""
        return self.row.label == "backdoored"

    @property
    def dud(self) -> bool:
        """True where poison was trained but does not fire: neither positive nor benign."""
        return self.row.label == "dud"

    def value(self, factor: str) -> str | None:
        """Value of one of `FACTORS` as text; the base and the rank are read where none is given."""
        value = getattr(self.row, factor)
        if value is None and factor == "base":
            value = self.weights.base_model or "unknown"
        if value is None and factor == "rank":
            value = self.weights.rank
        return None if value is None else str(value)

    def triggers(self) -> set[tuple[str | None, str]]:
        """(attack, trigger) of a poisoned adapter; a benign one has none."""
        if self.row.label == "benign":
            return set()
        return {(self.row.attack, trigger) for trigger in self.row.trigger or ()}


@dataclass(frozen=True, eq=False)
class Zoo:
    """A benchmark that was read whole.

    Args:
        name: of its folder.
        manifest_sha256: hash of its manifest.
        entries: in the order of the manifest; then adapters of the wild, if there are any.
        unread: adapters of the wild that could not be read: target and reason.
    """

    name: str
    manifest_sha256: str
    entries: Sequence[Entry]
    unread: Sequence[tuple[str, str]] = field(default=())

    @property
    def has_splits(self) -> bool:
        """True where the manifest says which adapters are for training and which for testing."""
        return {"train", "test"} <= {entry.row.split for entry in self.entries}

    def members(self, split: str | None = None) -> list[int]:
        """Places of the benchmark's adapters in one split, or in any; never of the wild."""
        splits = {split} if split else {entry.row.split for entry in self.entries} - {WILD}
        return [place for place, entry in enumerate(self.entries) if entry.row.split in splits]

    def wild(self) -> list[int]:
        """Places of adapters of the wild."""
        return [place for place, entry in enumerate(self.entries) if entry.row.split == WILD]

    @cached_property
    def twins(self) -> dict[int, int]:
        """Places of adapters that have a twin, and the twin's."""
        return twins_of([entry.row for entry in self.entries])

    def bereft(self, place: int) -> bool:
        """True of a benign adapter whose twin is a dud: it would tip its cell, and is left out."""
        twin = self.twins.get(place)
        return twin is not None and self.entries[twin].dud

    def trains(self, place: int) -> bool:
        """True of adapters that a detector may learn from: neither duds nor their twins."""
        return not self.entries[place].dud and not self.bereft(place)

    def labels(self) -> NDArray[np.int64]:
        """(n,) 1 for a backdoor that fires, else 0."""
        return np.array([entry.positive for entry in self.entries], dtype=np.int64)

    def groups(self, *, triggers: bool = False, split_groups: bool = True) -> NDArray[np.int64]:
        """(n,) numbers that agree where adapters share data or are twins: not to be parted.

        Args:
            triggers: adapters poisoned with a common trigger belong together as well.
            split_groups: those of one split group as well.
        """
        return connected(
            [
                ("weights", entry.row.sha256),
                ("data", entry.row.data_hash),
                ("group", entry.row.split_group if split_groups else None),
                ("twins", min(place, self.twins.get(place, place))),
                *(
                    (("trigger", one) for one in sorted(entry.triggers(), key=str))
                    if triggers
                    else ()
                ),
            ]
            for place, entry in enumerate(self.entries)
        )


def read_zoo(root: Path, watch: Watch | None = None, *, base: str | None = None) -> Zoo:
    """Read a benchmark's manifest and all its adapters.

    Args:
        root: its folder.
        watch: called before each adapter is read.
        base: only adapters of this base model, by its name in the manifest.

    Raises:
        TargetNotFound: no manifest, an adapter is missing, or none is of that base model.
        MalformedFile: the manifest contradicts itself or the files.
        InputError: an adapter cannot be read.
    """
    rows = _of_base(read_manifest(root), base, root)
    folder = root if root.is_dir() else root.parent
    manifest = folder / FILE_NAME if root.is_dir() else root
    check_rows(rows, str(manifest))
    entries = []
    for number, row in enumerate(rows):
        if watch is not None:
            watch(number, len(rows), row.path)
        entries.append(_read(folder, row))
    # Once more, with the hashes of what was read: a manifest may leave them out.
    _check_column([entry.row for entry in entries], "sha256", str(manifest))
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    return Zoo(folder.resolve().name, digest, entries)


def _of_base(rows: Sequence[Row], base: str | None, root: Path) -> Sequence[Row]:
    if base is None:
        return rows
    own = [row for row in rows if row.base == base]
    if not own:
        known = ", ".join(sorted({row.base for row in rows if row.base})) or "none"
        raise TargetNotFound(
            "no adapter of that base model", file=str(root), expected=base, found=known
        )
    return own


def read_wild(zoo: Zoo, folder: Path, watch: Watch | None = None) -> Zoo:
    """The benchmark with every adapter below `folder` beside it, taken to be benign.

    Raises:
        TargetNotFound: there is no adapter.
    """
    from peftguard.adapters.adapter import open_adapter
    from peftguard.adapters.sources import find_sources

    found: list[Entry] = []
    unread: list[tuple[str, str]] = []
    sources = list(find_sources(str(folder.resolve()), limits=Limits(), offline=True))
    for number, source in enumerate(sources):
        if watch is not None:
            watch(number, len(sources), source.target)
        try:
            with open_adapter(source) as adapter:
                weights = weights_of(adapter)
        except PeftGuardError as error:
            unread.append((source.target, str(error)))
            continue
        found.append(Entry(Row(path=source.target, label="benign", split=WILD), weights))
    return Zoo(zoo.name, zoo.manifest_sha256, [*zoo.entries, *found], unread)


def check_rows(rows: Sequence[Row], manifest: str) -> None:
    """Raise MalformedFile where rows cannot make an honest evaluation."""
    labels = {row.label for row in rows}
    if not {"benign", "backdoored"} <= labels:
        found = ", ".join(sorted(labels)) or "no rows"
        raise MalformedFile(
            "one class only", file=manifest, expected="benign and backdoored rows", found=found
        )
    missing = [row.path for row in rows if row.split is None]
    if missing and len(missing) < len(rows):
        raise MalformedFile(
            "some rows have a split and some have none", file=manifest, key=missing[0]
        )
    reserved = [row.path for row in rows if row.split == WILD]
    if reserved:
        raise MalformedFile("a split of that name is reserved", file=manifest, key=reserved[0])
    for column in ("path", "sha256", "data_hash", "split_group"):
        _check_column(rows, column, manifest)


def _check_column(rows: Sequence[Row], column: str, manifest: str) -> None:
    """A path stands in one row; weights, training data and groups belong to one split."""
    seen: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        value = getattr(row, column)
        if value is not None:
            seen[value].append(row)
    for value, those in seen.items():
        splits = sorted({str(row.split) for row in those})
        if column == "path" and len(those) > 1:
            raise MalformedFile(f"{len(those)} rows have this path", file=manifest, key=value)
        if len(splits) > 1:
            raise MalformedFile(
                f"the same {column} stands in several splits ({those[0].path} and others)",
                file=manifest,
                key=value,
                expected="one split",
                found=", ".join(splits),
            )
        if column == "sha256" and len({row.label for row in those}) > 1:
            raise MalformedFile("the same weights have two labels", file=manifest, key=value)


def _read(root: Path, row: Row) -> Entry:
    from peftguard.adapters.adapter import open_adapter

    folder = (root / row.path).resolve()
    if not folder.is_relative_to(root.resolve()):
        raise MalformedFile("leads out of the benchmark", file=FILE_NAME, key=row.path)
    if not folder.exists():
        raise TargetNotFound("the manifest names an adapter that is not there", file=row.path)
    try:
        with open_adapter(folder) as adapter:
            stored = sha256_of(adapter.source.weights[0])
            if row.sha256 not in (None, stored):
                raise MalformedFile(
                    "not the weights of the manifest",
                    file=row.path,
                    key="sha256",
                    expected=row.sha256,
                    found=stored,
                )
            return Entry(row.model_copy(update={"sha256": stored}), weights_of(adapter))
    except InputError as error:
        if error.file is None or row.path in error.file:
            raise
        raise InputError(str(error), file=row.path, code=error.code) from None


def connected(keys: Iterable[Iterable[tuple[str, Hashable]]]) -> NDArray[np.int64]:
    """(n,) component of each member; members that share a key, whose value is not None, are one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    members = [[key for key in own if key[1] is not None] for own in keys]
    numbers = {
        key: number for number, key in enumerate(dict.fromkeys(chain.from_iterable(members)))
    }
    rows = [place for place, own in enumerate(members) for _ in own]
    columns = [len(members) + numbers[key] for own in members for key in own]
    size = len(members) + len(numbers)
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    return np.asarray(labels[: len(members)], dtype=np.int64)
