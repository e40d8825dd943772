"""A folder tree as it may be read: no link that leads out, nothing opened but plain files."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from peftguard.adapters.filenames import natural, printable
from peftguard.errors import LimitExceeded
from peftguard.findings import Finding, found
from peftguard.limits import Limits

_SHARED_BLOB = re.compile(r"blobs/[0-9a-f]{2}/[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An entry that was not looked into; `folder` if adapters may lie below it."""

    name: str
    finding: Finding
    folder: bool = False


@dataclass(slots=True)
class Folder:
    """What lies in one folder: files and sub-folders in natural order, and what was refused."""

    path: Path
    files: list[Path] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


class Walk:
    """One walk below `root`; `limit` is the first limit it ran into, None if it saw everything.

    Links to files are followed if they end inside `root`, or inside the cache of the hub that
    `root` is a snapshot of. Links to folders are never followed: inside `root`, what they lead to
    is met at its own place.
    """

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root = root
        self.limits = limits
        self.limit: LimitExceeded | None = None
        self._seen = 0
        self._cache = _cache_of(root)

    def folder(self, path: Path | None = None, depth: int = 0) -> Folder:
        """Everything below `path`, by default the root; an unreadable folder is a refusal in it."""
        folder = Folder(path or self.root)
        try:
            with os.scandir(folder.path) as entries:
                listed = list(self._bounded(entries, folder))
        except OSError as error:
            reason = f"the folder cannot be listed: {error.strerror}"
            folder.refused.append(Refusal("", found("file.not-found", reason), folder=True))
            return folder
        for entry in sorted(listed, key=lambda entry: natural(entry.name)):
            self._place(entry, folder, depth)
        return folder

    def _bounded(
        self, entries: Iterator[os.DirEntry[str]], folder: Folder
    ) -> Iterator[os.DirEntry[str]]:
        for entry in entries:
            self._seen += 1
            if self._seen > self.limits.max_files:
                self._stop(folder, "", "max_files", "too many files", self.limits.max_files)
                return
            if len(entry.name) > self.limits.max_name_length:
                limit = self.limits.max_name_length
                self._stop(folder, entry.name, "max_name_length", "file name too long", limit)
                continue
            yield entry

    def _place(self, entry: os.DirEntry[str], folder: Folder, depth: int) -> None:
        path = Path(entry.path)
        if entry.is_symlink():
            self._place_link(path, folder)
        elif entry.is_dir(follow_symlinks=False):
            if entry.name != ".git":
                self._descend(path, folder, depth)
        elif entry.is_file(follow_symlinks=False):
            folder.files.append(path)
        else:
            _refuse(folder, path.name, "file.malformed", "neither a file nor a folder; not opened")

    def _place_link(self, link: Path, folder: Folder) -> None:
        target = os.path.realpath(link)
        try:
            mode = os.stat(target).st_mode
        except OSError:
            _refuse(folder, link.name, "file.not-found", "the link leads nowhere")
            return
        is_folder = stat.S_ISDIR(mode)
        if not self._contains(Path(target)):
            reason = "the link leads out of the input"
            _refuse(folder, link.name, "file.symlink-outside", reason, is_folder=is_folder)
        elif stat.S_ISREG(mode):
            folder.files.append(link)
        elif not is_folder:
            _refuse(folder, link.name, "file.malformed", "neither a file nor a folder; not opened")

    def _descend(self, path: Path, folder: Folder, depth: int) -> None:
        if self._seen > self.limits.max_files:
            return
        if depth + 1 > self.limits.max_depth:
            limit = self.limits.max_depth
            self._stop(folder, path.name, "max_depth", "folders nest too deeply", limit)
            return
        folder.folders.append(self.folder(path, depth + 1))

    def _stop(self, folder: Folder, name: str, key: str, problem: str, limit: int) -> None:
        """Note a limit for the caller, and in the folder whose listing is now incomplete."""
        error = LimitExceeded(
            problem, file=printable(folder.path.name), key=key, expected=f"at most {limit}"
        )
        self.limit = self.limit or error
        folder.refused.append(Refusal(name, found(error.code, str(error))))

    def _contains(self, target: Path) -> bool:
        if target.is_relative_to(self.root):
            return True
        if self._cache is None:
            return False
        shared = target.is_relative_to(self._cache.parent) and _SHARED_BLOB.fullmatch(
            str(target.relative_to(self._cache.parent))
        )
        return target.is_relative_to(self._cache) or bool(shared)


def _refuse(folder: Folder, name: str, code: str, reason: str, *, is_folder: bool = False) -> None:
    shown = printable(name)
    finding = found(code, f"{shown}: {reason}", file=shown)
    folder.refused.append(Refusal(name, finding, folder=is_folder))


def _cache_of(root: Path) -> Path | None:
    """`models--org--name` of a hub cache that holds `root` as `snapshots/<commit>` or below it."""
    for snapshots in root.parents:
        if snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--"):
            return snapshots.parent
    return None
