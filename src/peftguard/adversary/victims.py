"""Which adapters are attacked: one, or those of a benchmark."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from peftguard.errors import InputError, TargetNotFound
from peftguard.evaluation.twins import twins_of
from peftguard.padbench.claim import read_claim
from peftguard.padbench.manifest import FILE_NAME, Row, read_manifest
from peftguard.padbench.plan import Plan


@dataclass(frozen=True, slots=True)
class Victim:
    """An adapter to be attacked.

    Args:
        name: its path in the benchmark, or its folder's name.
        folder: where it is.
        row: what a manifest says of it; None if none does.
        twin: folder of a benign adapter of its kind, if there is one.
    """

    name: str
    folder: Path
    row: Row | None = None
    twin: Path | None = None


@dataclass(frozen=True, slots=True)
class Victims:
    """What was found.

    Args:
        chosen: adapters to attack.
        rows: of the whole benchmark that they are from; empty without one.
        root: its folder.
    """

    chosen: Sequence[Victim]
    rows: Sequence[Row]
    root: Path | None


def find_victims(
    target: Path,
    *,
    labels: Collection[str] = ("backdoored",),
    split: str | None = None,
    twin: Path | None = None,
) -> Victims:
    """Adapters of a benchmark with the labels asked for, or the one in a folder whatever it is.

    An adapter that lies in a benchmark is looked up in its manifest.

    Args:
        target: a folder with a manifest, a manifest, or an adapter's folder.
        labels: of a benchmark's adapters.
        split: of a benchmark's adapters; None: any.
        twin: a benign adapter for all of them, in place of each one's own twin.

    Raises:
        TargetNotFound: there is nothing, or no such adapter.
        MalformedFile: the manifest is broken.
    """
    manifest = target / FILE_NAME if target.is_dir() else target
    if manifest.is_file():
        rows, root = read_manifest(manifest), manifest.parent
        everyone = _victims(rows, root, twin)
        chosen = [
            victim
            for victim, row in zip(everyone, rows, strict=True)
            if row.label in labels and split in (None, row.split)
        ]
        if not chosen:
            wanted = f"{' or '.join(labels)}{f' in split {split}' if split else ''}"
            raise TargetNotFound("no such adapter", file=str(manifest), expected=wanted)
        return Victims(chosen, rows, root)
    if not target.is_dir():
        raise TargetNotFound("neither an adapter's folder nor a benchmark", file=str(target))
    return _one(target, twin)


def _one(folder: Path, twin: Path | None) -> Victims:
    """An adapter by its folder, with its row if a folder above has a manifest that names it."""
    folder = folder.resolve()
    for above in folder.parents:
        rows = _rows_above(above)
        own = [one for one in _victims(rows, above, twin) if one.folder.resolve() == folder]
        if own:
            return Victims(own, rows, above)
    return Victims([Victim(folder.name, folder, None, twin)], [], None)


def _rows_above(folder: Path) -> Sequence[Row]:
    """Of a manifest nobody pointed at: another project's file of that name is no mistake."""
    try:
        return read_manifest(folder) if (folder / FILE_NAME).is_file() else []
    except InputError:
        return []


def _victims(rows: Sequence[Row], root: Path, twin: Path | None) -> list[Victim]:
    twins = twins_of(rows)

    def twin_of(place: int) -> Path | None:
        benign = rows[place].label != "benign" and place in twins
        return twin or (root / rows[twins[place]].path if benign else None)

    return [
        Victim(row.path, root / row.path, row, twin_of(place)) for place, row in enumerate(rows)
    ]


def drawn(victims: Victims, limit: int | None, seed: int) -> Victims:
    """At most so many of them, in random order."""
    order = np.random.default_rng(seed).permutation(len(victims.chosen))[:limit]
    return replace(victims, chosen=[victims.chosen[place] for place in order])


def as_built(root: Path | None, setting: Literal["test_share", "fires_at"]) -> float:
    """A setting of a benchmark's plan as its build noted it, or the default.

    Args:
        root: of the benchmark; None without one.
        setting: `test_share`, the share of the training rows that adapters of the test split have,
            or `fires_at`, the attack success from which on a backdoor fires.
    """
    begun = read_claim(root) if root else {}
    return float(begun["plan"][setting] if begun else Plan.model_fields[setting].default)
