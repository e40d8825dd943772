"""Zip archives that hold tensors: only the plainest layout, which all readers read alike."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence

from peftguard.adapters.containers.names import check_name, shown, too_many, twice
from peftguard.adapters.plainfile import PlainFile, Stream
from peftguard.errors import InputError, MalformedFile, PeftGuardError
from peftguard.limits import Limits

_END = b"PK\x05\x06"
_END_SIZE = 22
_LOCAL_HEADER = 30
_ENCRYPTED = 0x1
_MEMBERS_BESIDE_TENSORS = 64


class Archive:
    """A zip archive whose members are stored as they are, one after the other, none twice.

    Compression is refused: torch and MLX do not use it, and without it an archive cannot unpack
    to more than its own size.

    Raises:
        MalformedFile: the archive is cut short, or not of that plain kind.
        LimitExceeded: too many members, or a directory over `max_header_bytes`.
    """

    def __init__(self, file: PlainFile, limits: Limits) -> None:
        self.file = file
        self._zip = _open(file, limits)
        self.members: Sequence[zipfile.ZipInfo] = sorted(
            self._zip.infolist(), key=lambda member: member.header_offset
        )
        _check_members(self.members, file, limits)
        self._starts = {member.filename: self._start(member) for member in self.members}
        self._check_layout()

    def start(self, member: zipfile.ZipInfo) -> int:
        """Offset of the first byte of a member's content in the file."""
        return self._starts[member.filename]

    def head(self, member: zipfile.ZipInfo, most: int) -> bytes:
        """The first `most` bytes of a member, fewer if it has fewer."""
        return self.file.read(self.start(member), min(most, member.file_size))

    def _start(self, member: zipfile.ZipInfo) -> int:
        """From the local header, which must name the same member as the directory."""
        at = member.header_offset
        local = self.file.read(at, _LOCAL_HEADER)
        length = int.from_bytes(local[26:28], "little")
        extra = int.from_bytes(local[28:30], "little")
        name = self.file.read(at + _LOCAL_HEADER, length)
        if local[:4] != b"PK\x03\x04" or name != member.orig_filename.encode(_charset(member)):
            raise self._odd(member, "directory and content disagree about a member")
        return at + _LOCAL_HEADER + length + extra

    def _check_layout(self) -> None:
        reached = 0
        for member in self.members:
            if reached == 0 and member.header_offset:
                raise self._odd(member, "something lies before the first member")
            if member.header_offset < reached:
                raise self._odd(member, "members overlap")
            reached = self.start(member) + member.file_size
        if reached > self._zip.start_dir:
            raise self._odd(self.members[-1], "a member reaches into the directory")

    def _odd(self, member: zipfile.ZipInfo, problem: str) -> InputError:
        return MalformedFile(problem, file=self.file.name, key=shown(member.filename))


def _open(file: PlainFile, limits: Limits) -> zipfile.ZipFile:
    """Read the directory, which zipfile does at once: the stream bounds how large it may be."""
    end = file.read(max(0, file.size - _END_SIZE), min(_END_SIZE, file.size))
    if not end.startswith(_END):
        raise MalformedFile("no zip directory at the end", file=file.name, code="file.truncated")
    try:
        return zipfile.ZipFile(Stream(file, limits.max_header_bytes))
    except PeftGuardError:
        raise
    # Damaged archives make it raise nearly anything: struct.error, OverflowError, UnicodeError.
    except Exception as error:
        raise MalformedFile(f"not a readable zip archive: {error}", file=file.name) from None


def _check_members(members: Sequence[zipfile.ZipInfo], file: PlainFile, limits: Limits) -> None:
    if len(members) > limits.max_tensors + _MEMBERS_BESIDE_TENSORS:
        raise too_many(file.name, len(members), limits)
    names = set()
    for member in members:
        check_name(member.orig_filename, file.name, limits)
        if member.filename in names:
            raise twice(file.name, member.filename)
        names.add(member.filename)
        if member.flag_bits & _ENCRYPTED or member.compress_type != zipfile.ZIP_STORED:
            raise MalformedFile(
                "a member is encrypted or compressed",
                file=file.name,
                key=shown(member.filename),
                expected="stored as it is",
                found=f"{member.compress_size} bytes that unpack to {member.file_size}",
            )
        if member.compress_size != member.file_size:
            raise MalformedFile(
                "a stored member has two sizes", file=file.name, key=shown(member.filename)
            )
        if member.header_offset + member.file_size > file.size:
            raise file.cut_short(member.header_offset + member.file_size)


def _charset(member: zipfile.ZipInfo) -> str:
    return "utf-8" if member.flag_bits & 0x800 else "cp437"
