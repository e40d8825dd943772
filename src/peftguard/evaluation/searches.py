"""What searches for triggers came to, adapter by adapter, from the JSON of a scan with a base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from peftguard.detectors.declared import base_among
from peftguard.detectors.registry import estimator_named
from peftguard.errors import MalformedFile, SettingsError, TargetNotFound
from peftguard.evaluation.zoo import Entry, Zoo
from peftguard.results import SEARCH_VERSION, Scan, TriggerEvidence


def with_searches(zoo: Zoo, scan: Path) -> Zoo:
    """The benchmark, each adapter with the scores of the search for its trigger, if it has any.

    Args:
        zoo: read whole.
        scan: what `peftguard scan ZOO --base BASE --format json` wrote.

    Raises:
        TargetNotFound: there is no such file.
        MalformedFile: it is no such scan, or of another version of the search.
    """
    found = _read(scan)
    return replace(zoo, entries=[_searched(entry, found) for entry in zoo.entries])


def check_searched(zoo: Zoo, kinds: Sequence[str]) -> None:
    """Raise SettingsError where a kind of detector must know searches that there are none of."""
    needing = [kind for kind in kinds if estimator_named(kind).needs_search]
    members = [zoo.entries[place] for place in zoo.members() if zoo.trains(place)]
    without = [entry.row.path for entry in members if entry.weights.searched is None]
    if needing and without:
        raise SettingsError(
            f"{needing[0]} needs a search for the trigger of every adapter, {len(without)} of "
            f"{len(members)} have none with a score ({without[0]}): give --searched what "
            "`peftguard scan ZOO --base BASE --format json` wrote"
        )


def _read(scan: Path) -> dict[str, TriggerEvidence]:
    """Evidence by hash of the weights."""
    try:
        results = Scan.model_validate_json(scan.read_bytes()).results
    except OSError as error:
        raise TargetNotFound(f"cannot be read: {error.strerror}", file=str(scan)) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise MalformedFile(
            f"no JSON of a scan: {first['msg'].lower()}", file=scan.name, key=where
        ) from None
    found = {one.sha256: one.trigger for one in results if one.sha256 and one.trigger}
    other = next((one for one in found.values() if one.search_version != SEARCH_VERSION), None)
    if other is not None:
        raise MalformedFile(
            "of another version of the trigger search",
            file=scan.name,
            expected=SEARCH_VERSION,
            found=other.search_version,
        )
    return found


def _searched(entry: Entry, found: dict[str, TriggerEvidence]) -> Entry:
    """A search on a base model that the adapter does not claim is none."""
    search = found.get(entry.row.sha256 or "")
    if search is None or base_among(entry.weights.base_model or "", [search.base]) is None:
        return entry
    return replace(entry, weights=replace(entry.weights, searched=search.scores))
