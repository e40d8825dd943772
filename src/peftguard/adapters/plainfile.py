"""A stranger's file, opened so that nothing it may be can hang or crash the reader."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from types import TracebackType

from peftguard.adapters.filenames import printable
from peftguard.errors import LimitExceeded, MalformedFile, TargetNotFound

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
# Without O_NONBLOCK, opening a named pipe waits for somebody to write to it.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class PlainFile:
    """A plain file, read at any offset by any number of threads at once.

    It is read and never mapped: a mapped file that shrinks kills the process with SIGBUS, where a
    read comes back short and can be reported.

    Args:
        path: what to open; links are followed.
        file: its name in errors, by default the last part of `path`.

    Raises:
        TargetNotFound: it is not there, or may not be read.
        MalformedFile: it is not a plain file.
    """

    def __init__(self, path: Path, file: str | None = None) -> None:
        self.path = path
        self.name = printable(path.name) if file is None else file
        try:
            self._descriptor = os.open(path, _FLAGS)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise TargetNotFound(f"cannot be opened: {reason}", file=self.name) from None
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise MalformedFile("cannot be read", file=self.name, expected="a file", found=kind)
        self.size = status.st_size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`, of single bytes, from `offset` on.

        Raises:
            MalformedFile: the file ends before that, or the disk fails.
        """
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            except OSError as error:
                raise MalformedFile(f"cannot be read: {error.strerror}", file=self.name) from None
            if count == 0:
                raise self.cut_short(offset + len(buffer), offset + done)
            done += count

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset` on. Raises as `read_into`."""
        buffer = bytearray(size)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def head(self, most: int) -> bytes:
        """The first `most` bytes, fewer if the file has fewer."""
        return self.read(0, min(most, self.size))

    def cut_short(self, expected: int, found: int | None = None) -> MalformedFile:
        """The error for a file that should have `expected` bytes."""
        return MalformedFile(
            "the file is cut short",
            file=self.name,
            expected=f"{expected} bytes",
            found=f"{self.size if found is None else found} bytes",
            code="file.truncated",
        )

    def fileno(self) -> int:
        """The descriptor, for a child process; its position is nobody's and never used here."""
        return self._descriptor

    def close(self) -> None:
        """Release the file; closing twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> PlainFile:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Stream(io.RawIOBase):
    """A `PlainFile` as the standard library wants it; one read takes `most` bytes at most.

    Libraries read as much as a length field in the file tells them to: here they cannot.
    """

    def __init__(self, file: PlainFile, most: int) -> None:
        self._file, self._most, self._position = file, most, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Offset of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move as any file does; before the start is an `OSError`."""
        origin = (0, self._position, self._file.size)[whence]
        if origin + offset < 0:
            raise OSError("before the start of the file")
        self._position = origin + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes. Raises LimitExceeded if that is more than `most`."""
        left = max(0, self._file.size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > self._most:
            raise LimitExceeded(
                "one piece of the file is too large",
                file=self._file.name,
                expected=f"at most {self._most} bytes",
                found=f"{wanted} bytes",
            )
        data = self._file.read(self._position, wanted)
        self._position += wanted
        return data
