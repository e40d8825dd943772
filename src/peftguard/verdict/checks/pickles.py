"""Pickles that lie beside an adapter: never loaded, but scanned for what loading them would run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from peftguard.adapters.containers.magic import HEAD_BYTES, Kind, kind_of
from peftguard.adapters.filenames import printable
from peftguard.adapters.plainfile import PlainFile
from peftguard.errors import InputError, LimitExceeded, UnsafeFile
from peftguard.findings import Finding, found
from peftguard.limits import Deadline, Limits

_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill")


def check_pickle(path: Path, file: str, limits: Limits, deadline: Deadline) -> Iterator[Finding]:
    """A finding if loading the file at `path`, called `file`, would run code.

    It is `file.code-beside`: no loader takes the file for the adapter, so it is a trap, not proof
    against the adapter. Names that are merely unknown are ordinary here (a trainer's arguments).

    Raises:
        LimitExceeded: the pickle is too long, or out of time.
    """
    name = printable(file)
    try:
        with PlainFile(path, name) as opened:
            _scan(opened, limits, deadline)
    except LimitExceeded:
        raise
    except UnsafeFile as error:
        if error.code == UnsafeFile.code:
            yield found("file.code-beside", str(error), file=name)
        elif error.found is None:
            yield found(error.code, str(error), file=name)
    except InputError:
        # No whole pickle: nothing would be run from it, and nobody asked for this file.
        return


def _scan(file: PlainFile, limits: Limits, deadline: Deadline) -> None:
    """By content, since a pickle may go under any name; text and archives only by their suffix."""
    kind = kind_of(file.head(HEAD_BYTES), file=file.name)
    is_called_pickle = file.path.name.lower().endswith(_SUFFIXES)
    if kind is not Kind.PICKLE and not is_called_pickle:
        return
    # Most adapters have no pickle beside them, and should not pay for its readers.
    from peftguard.adapters.containers.archive import Archive
    from peftguard.adapters.containers.torch_pickle import scan_archive, scan_stream, scan_unknown

    if kind is Kind.PICKLE:
        scan_stream(file, limits, deadline)
    elif kind is Kind.ZIP:
        scan_archive(Archive(file, limits), limits, deadline)
    elif kind is Kind.UNKNOWN:
        scan_unknown(file, limits, deadline)
