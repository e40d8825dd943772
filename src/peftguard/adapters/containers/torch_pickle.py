"""torch's .bin, .pt and .ckpt: scanned first, then converted to safetensors by a child process.

Loading is torch's, with `weights_only=True`: the opcodes it knows cannot call anything outside its
allow-list. The child is there for what a hostile file can still do to it: take memory and time.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from peftguard.adapters.containers import torch_child
from peftguard.adapters.containers.archive import Archive
from peftguard.adapters.containers.magic import not_weights
from peftguard.adapters.containers.names import shown
from peftguard.adapters.containers.pickle_scan import (
    Pickles,
    broken_pickle,
    scan_pickle,
    whole_pickles,
)
from peftguard.adapters.containers.safetensors_file import open_safetensors
from peftguard.adapters.containers.stored import StoredTensors
from peftguard.adapters.filenames import printable
from peftguard.adapters.jsonfile import load_json
from peftguard.adapters.plainfile import PlainFile
from peftguard.errors import InputError, LimitExceeded, MalformedFile, MissingExtra, UnsafeFile
from peftguard.findings import Finding, found
from peftguard.limits import MIB, Deadline, Limits

_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
_PICKLE = "/data.pkl"
_FIRST_BYTES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_PICKLES_BEFORE_STORAGES = 5
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
# The child reads a stranger's bytes: it gets no tokens and nothing else it does not need.
_ENVIRONMENT = ("PATH", "HOME", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL")


def is_torch_archive(archive: Archive) -> bool:
    """True for the members that `torch.save` writes: all in one folder, with one `data.pkl`."""
    tops = {member.filename.partition("/")[0] for member in archive.members}
    pickles = [member for member in archive.members if member.filename.endswith(_PICKLE)]
    return len(tops) == 1 and [member.filename for member in pickles] == [f"{tops.pop()}{_PICKLE}"]


def scan_archive(archive: Archive, limits: Limits, deadline: Deadline) -> None:
    """Scan every pickle in a zip archive, wherever it lies. Raises as `scan_pickle`.

    Raises:
        MalformedFile: a member called a pickle is none.
        UnsafeFile: the archive is TorchScript, which holds a program.
    """
    file = archive.file
    if any(member.filename.endswith("/constants.pkl") for member in archive.members):
        raise UnsafeFile("loading it runs code", file=file.name, found="a TorchScript program")
    for member in archive.members:
        is_called_pickle = member.filename.endswith(".pkl")
        if not is_called_pickle and not archive.head(member, 2).startswith(_FIRST_BYTES):
            continue
        data = archive.head(member, limits.max_header_bytes)
        name = f"{file.name}: {shown(member.filename)}"
        # Two bytes of a tensor can look like the start of a pickle, but do not make a whole one.
        if not is_called_pickle and not whole_pickles(data, file=name, deadline=deadline).whole:
            continue
        pickles = scan_pickle(data, file=name, deadline=deadline)
        if is_called_pickle and not pickles.whole:
            raise broken_pickle(pickles, name, len(data), member.file_size)


def scan_stream(file: PlainFile, limits: Limits, deadline: Deadline) -> None:
    """Scan the pickles that a file starts with, as torch wrote before 1.6. Raises as `scan_pickle`.

    Raises:
        MalformedFile: there is no whole pickle.
        LimitExceeded: the pickles do not end within `max_header_bytes`.
    """
    data = file.head(limits.max_header_bytes)
    expected = _PICKLES_BEFORE_STORAGES if _TORCH_MAGIC in data[:16] else 1
    ends = whole_pickles(data, file=file.name, deadline=deadline).ends
    if expected > 1 and len(ends) >= expected:
        # Numbers follow, which mean nothing as opcodes but may look like some.
        data = data[: ends[expected - 1]]
    pickles = scan_pickle(data, file=file.name, deadline=deadline)
    if pickles.whole < expected:
        raise broken_pickle(_no_more(pickles), file.name, len(data), file.size)


def scan_unknown(file: PlainFile, limits: Limits, deadline: Deadline) -> NoReturn:
    """Scan bytes without a magic as a pickle of protocol 0, and refuse them whatever they are.

    Raises:
        UnsafeFile: as a pickle they would import something.
        MalformedFile: they are no weights.
    """
    data = file.head(limits.max_header_bytes)
    try:
        scan_pickle(data, file=file.name, deadline=deadline)
    except UnsafeFile as error:
        # Text can look like a fragment of a pickle that imports something, though not `os.system`.
        is_known = error.code == UnsafeFile.code
        if is_known or whole_pickles(data, file=file.name, deadline=deadline).whole:
            raise
    if file.size < 9:
        raise file.cut_short(9)
    raise not_weights(file.name, f"bytes that start {file.head(8).hex(' ')}")


def convert(file: PlainFile, limits: Limits, deadline: Deadline) -> StoredTensors:
    """Open a pickle that was scanned: torch's copy of its tensors, read as safetensors.

    Raises:
        MissingExtra: torch is not installed.
        UnsafeFile: torch's weights-only loader refuses the pickle.
        MalformedFile: torch cannot read it, or an entry is not an ordinary tensor.
        LimitExceeded: loading took more than `sandbox_bytes`, or too long.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingExtra("reading a torch pickle", "torch")
    with tempfile.TemporaryDirectory(prefix="peftguard-") as name:
        folder = Path(name)
        status = _run_child(file, folder, limits, deadline)
        report = _report(file, folder, status, limits)
        # The folder goes at once; what is open can still be read.
        copy = PlainFile(folder / torch_child.TENSORS, file.name)
    try:
        container = open_safetensors(copy, limits, deadline)
    except BaseException:
        copy.close()
        raise
    file.close()
    container.path, container.format = file.path, "pickle"
    container.findings = _findings(file, report)
    return container


def _run_child(file: PlainFile, folder: Path, limits: Limits, deadline: Deadline) -> int:
    """Exit status of the child; it gets the descriptor, so it loads the bytes that were scanned."""
    deadline.check(f"loading {file.name}")
    arguments = (file.fileno(), limits.sandbox_bytes, int(deadline.remaining) + 1, _room(file))
    # -P: a torch.py beside the adapter must not be imported.
    command = [sys.executable, "-P", torch_child.__file__, *map(str, arguments)]
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    child = subprocess.Popen(  # noqa: S603
        command,
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
        pass_fds=[file.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return child.wait(timeout=deadline.remaining)
    except subprocess.TimeoutExpired:
        raise LimitExceeded(
            "loading the pickle took too long",
            file=file.name,
            key="max_seconds",
            expected=f"at most {deadline.seconds:g} s",
        ) from None
    finally:
        child.kill()
        child.wait()


def _room(file: PlainFile) -> int:
    """Bytes the copy may take: tensors that share memory are written apart, but not without end."""
    return 2 * file.size + 16 * MIB


def _report(file: PlainFile, folder: Path, status: int, limits: Limits) -> Mapping[str, Any]:
    path = folder / torch_child.REPORT
    if status == 0 and path.exists():
        report = load_json(path, file=file.name, limits=limits)
        if "problem" not in report:
            return report
        raise _problem(file, str(report["problem"]), report.get("key"), report.get("cause"))
    if -status in _CRASHES:
        raise MalformedFile("torch crashed on it", file=file.name, found=f"signal {-status}")
    raise LimitExceeded(
        "loading the pickle took more memory or time than allowed",
        file=file.name,
        key="sandbox_bytes",
        expected=f"at most {limits.sandbox_bytes} bytes",
        found=f"a child process that ended with status {status}",
    )


def _problem(file: PlainFile, problem: str, key: object, cause: object) -> InputError:
    where = shown(key) if isinstance(key, str) else None
    short = printable(" ".join(problem.split())[:200])
    if cause == "memory":
        return LimitExceeded(short, file=file.name, key="sandbox_bytes")
    if cause == "size":
        return LimitExceeded(short, file=file.name, key=where)
    if cause == "refused":
        return UnsafeFile(
            f"torch's weights-only loader refuses it: {short}",
            file=file.name,
            code="file.unsafe-pickle",
        )
    code = "file.duplicate-key" if cause == "duplicate" else None
    return MalformedFile(short, file=file.name, key=where, code=code)


def _findings(file: PlainFile, report: Mapping[str, Any]) -> tuple[Finding, ...]:
    message = "the weights are a pickle; nothing in it runs code"
    findings = [found("file.pickle", message, file=file.name)]
    others = [shown(str(entry)) for entry in report.get("others", [])]
    if others:
        listed = ", ".join(others[:8]) + (f" and {len(others) - 8} more" if others[8:] else "")
        text = f"entries that are no tensors were not read: {listed}"
        findings.append(found("file.pickle", text, file=file.name))
    return tuple(findings)


def _no_more(pickles: Pickles) -> Pickles:
    """Bytes that end between two pickles end too early."""
    return pickles._replace(problem=pickles.problem or "pickle exhausted")
