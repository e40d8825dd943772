"""What searches for triggers came to, adapter by adapter, from the JSON of a scan with a base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

from pydantic import ValidationError

from peftguard.adapters.filenames import printable
from peftguard.detectors.declared import base_among
from peftguard.detectors.registry import estimator_named
from peftguard.errors import MalformedFile, SettingsError, TargetNotFound
from peftguard.evaluation.zoo import Entry, Zoo
from peftguard.results import SEARCH_VERSION, Result, Scan, TriggerEvidence


@dataclass(frozen=True, slots=True)
class Searches:
    """The searches of a scan, by hash of the weights; `file` is its name, for messages."""

    file: str
    found: Mapping[str, TriggerEvidence]


def read_searches(scan: Path) -> Searches:
    """The searches of a scan with a base.

    Args:
        scan: what `peftguard scan ZOO --base BASE --format json` wrote.

    Raises:
        TargetNotFound: there is no such file.
        MalformedFile: it is no such scan, or of another version of the search.
    """
    file = printable(str(scan))
    results = _read(scan, file)
    found = {one.sha256: one.trigger for one in results if one.sha256 and one.trigger}
    if not found:
        wanted, there = "a scan with --base", f"{len(results)} results without a search"
        raise MalformedFile("no search for a trigger", file=file, expected=wanted, found=there)
    for one in results:
        _check(one, file)
    return Searches(file, found)


def with_searches(zoo: Zoo, searches: Searches) -> Zoo:
    """The benchmark, each adapter with the scores of the search for its trigger, if it has any.

    Raises:
        SettingsError: none of its adapters was searched on the base model that it claims.
    """
    entries = [_searched(entry, searches) for entry in zoo.entries]
    if not any(new is not old for new, old in zip(entries, zoo.entries, strict=True)):
        raise SettingsError(f"{searches.file}: {_why_none(zoo, searches)}")
    return replace(zoo, entries=entries)


def check_searched(zoo: Zoo, kinds: Sequence[str]) -> None:
    """Raise SettingsError where a kind of detector must know searches that there are none of."""
    needing = [kind for kind in kinds if estimator_named(kind).needs_search]
    members = [zoo.entries[place] for place in zoo.members() if zoo.trains(place)]
    without = [entry.row.path for entry in members if entry.weights.searched is None]
    if needing and without:
        raise SettingsError(
            f"{needing[0]} needs a search for the trigger of every adapter, {len(without)} of "
            f"{len(members)} have none with a score ({without[0]}): give --searched what "
            "`peftguard scan ZOO --base BASE --format json` wrote, with time enough in --budget"
        )


def _read(scan: Path, file: str) -> list[Result]:
    try:
        return Scan.model_validate_json(scan.read_bytes()).results
    except OSError as error:
        raise TargetNotFound(f"cannot be read: {error.strerror}", file=file) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = printable(".".join(map(str, first["loc"])))[:120]
        raise MalformedFile(
            f"no JSON of a scan: {first['msg'].lower()}", file=file, key=where
        ) from None


def _check(result: Result, file: str) -> None:
    """Raise MalformedFile where its scores cannot be compared with others."""
    search = result.trigger
    if search is None:
        return
    if search.search_version != SEARCH_VERSION:
        raise MalformedFile(
            "of another version of the trigger search",
            file=file,
            expected=SEARCH_VERSION,
            found=search.search_version,
        )
    scores = search.scores.model_dump(exclude_none=True) if search.scores else {}
    if not all(map(isfinite, scores.values())):
        name = printable(result.target)
        raise MalformedFile("scores that are no numbers", file=file, key=name, found=scores)


def _searched(entry: Entry, searches: Searches) -> Entry:
    """A search on a base model that the adapter does not claim is none."""
    search = searches.found.get(entry.row.sha256 or "")
    if search is None or base_among(entry.weights.base_model or "", [search.base]) is None:
        return entry
    return replace(entry, weights=replace(entry.weights, searched=search.scores))


def _why_none(zoo: Zoo, searches: Searches) -> str:
    own = [entry for entry in zoo.entries if entry.row.sha256 in searches.found]
    if not own:
        counts = f"{len(searches.found)} searches there, {len(zoo.entries)} adapters here"
        return f"no search has the weights (sha256) of an adapter of {zoo.name}; {counts}"
    bases = {searches.found[entry.row.sha256 or ""].base for entry in own}
    claimed = {entry.weights.base_model or "none" for entry in own}
    searched, named = (printable(", ".join(sorted(names)))[:120] for names in (bases, claimed))
    return f"searched on {searched}, and the adapters of {zoo.name} name {named} as their base"
