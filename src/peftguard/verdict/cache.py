"""Results of adapters that were scanned before, keyed by content, settings, detectors and base.

Only the content decides: the same bytes elsewhere hit, a changed byte in any file of the adapter
misses. An adapter whose total size was never seen is not hashed for the look-up at all. Where an
initial adapter is subtracted, or a search compares with benign ones, nothing is cached, since their
bytes would have to count as well.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from platformdirs import user_cache_path
from pydantic import ValidationError

from peftguard import __version__
from peftguard.adapters.source import Source
from peftguard.detectors.base import Detector
from peftguard.errors import LimitExceeded
from peftguard.limits import Deadline
from peftguard.results import SCHEMA_VERSION, FileDigest, Result
from peftguard.settings import ScanSettings
from peftguard.verdict.digest import digest_files

# What these say may differ at the next try: more time, another package, a repaired peftguard.
_PASSING = frozenset(
    {
        "file.limit-reached",
        "file.needs-extra",
        "integrity.pattern-skipped",
        "trigger.cut-short",
        "trigger.not-run",
        "error.internal",
    }
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY, n_bytes INTEGER NOT NULL, result TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_size ON results (n_bytes);
"""


def cache_path() -> Path:
    """The SQLite file that holds cached results."""
    return user_cache_path("peftguard") / "results.sqlite"


class ResultCache:
    """Cached results; a cache that cannot be opened or read is an empty one."""

    def __init__(
        self, settings: ScanSettings, detectors: Sequence[Detector], path: Path | None = None
    ) -> None:
        self.path = path or cache_path()
        choices = settings.model_dump_json(include={"fpr", "limits"})
        cards = [detector.card.sha256 for detector in detectors]
        base = _base(settings)
        self._context = "\n".join([__version__, SCHEMA_VERSION, choices, *cards, *base])
        compares = settings.base is not None and bool(settings.benign)
        self._is_on = settings.initial_adapter is None and not compares
        self._seconds = settings.limits.max_seconds

    def get(self, source: Source) -> Result | None:
        """The stored result for these bytes, marked `cached` and renamed to this target."""
        if not self._is_on:
            return None
        with suppress(sqlite3.Error, OSError, LimitExceeded, ValidationError):
            with closing(self._connect()) as database:
                size = _size(source)
                seen = database.execute("SELECT 1 FROM results WHERE n_bytes = ?", (size,))
                if seen.fetchone() is None:
                    return None
                row = database.execute(
                    "SELECT result FROM results WHERE key = ?", (self._key(source),)
                ).fetchone()
            if row is not None:
                stored = Result.model_validate_json(row[0])
                return stored.model_copy(update={"target": source.target, "cached": True})
        return None

    def put(self, source: Source, result: Result) -> None:
        """Keep a result that is worth keeping: one whose weights were read to the end."""
        if not self._is_on or result.adapter is None or result.sha256 is None:
            return
        if any(finding.code in _PASSING for finding in result.findings):
            return
        with suppress(sqlite3.Error, OSError, LimitExceeded), closing(self._connect()) as database:
            key = self._key(source, known=result.files)
            row = (key, _size(source), result.model_dump_json())
            with database:
                database.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", row)

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, timeout=10)
        database.executescript(_SCHEMA)
        return database

    def _key(self, source: Source, known: Sequence[FileDigest] = ()) -> str:
        """Of the context and all files; those in `known` are not hashed again."""
        by_path = {digest.path: digest for digest in known}
        left = [path for path in _files(source) if source.relative(path) not in by_path]
        fresh = digest_files(source, left, Deadline(self._seconds))
        by_path |= {digest.path: digest for digest in fresh}
        digests = [by_path[source.relative(path)] for path in _files(source)]
        lines = [f"{digest.path}\n{digest.sha256}" for digest in digests]
        origin = f"{source.origin.repo}@{source.origin.revision}" if source.origin else ""
        notes = [finding.model_dump_json() for finding in source.findings]
        text = "\n".join([self._context, origin, *lines, *notes])
        return hashlib.sha256(text.encode()).hexdigest()


def _files(source: Source) -> list[Path]:
    config = [source.config] if source.config else []
    return [*source.weights, *config, *source.beside]


def _base(settings: ScanSettings) -> list[str]:
    """What a trigger search depends on; of a base in a folder, what its files look like as well."""
    if settings.base is None:
        return []
    folder = Path(settings.base)
    stats = [(path, path.stat()) for path in sorted(folder.iterdir())] if folder.is_dir() else []
    files = [f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats]
    return [f"{settings.base} {settings.budget}", *files]


def _size(source: Source) -> int:
    return sum(path.stat().st_size for path in _files(source))
