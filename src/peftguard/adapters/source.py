"""One adapter as it lies on disk: which files hold it, and what lies beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peftguard.findings import Finding


@dataclass(frozen=True, slots=True)
class HubOrigin:
    """Where on the hub it came from: `revision` is the resolved commit, 40 hex digits."""

    repo: str
    revision: str


@dataclass(frozen=True, slots=True)
class Source:
    """Files of one adapter. All paths lie inside `root`; links that lead out were dropped.

    `weights` has one path, or the shards of one adapter in order. `beside` is every other file that
    would travel with the adapter (same folder; sub-folders that hold no adapter of their own).
    """

    target: str
    root: Path
    weights: tuple[Path, ...]
    config: Path | None = None
    beside: tuple[Path, ...] = ()
    origin: HubOrigin | None = None
    findings: tuple[Finding, ...] = ()

    def relative(self, path: Path) -> str:
        """`path` as shown to people: relative to `root` where it can be."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else path.name
