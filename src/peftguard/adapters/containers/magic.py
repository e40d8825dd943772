"""What a file is, by its first bytes; what its suffix promises counts for nothing here."""

from __future__ import annotations

from enum import StrEnum

from peftguard.adapters.placeholders import refuse_placeholder
from peftguard.errors import MalformedFile

HEAD_BYTES = 512
"""How much of a file `kind_of` wants to see."""

_MAX_PROTOCOL = 5
_LARGEST_HEADER = 1 << 40
_NOT_WEIGHTS = (
    (b"\x1f\x8b", "gzip data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"\x28\xb5\x2f\xfd", "zstandard data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a single NumPy array"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"#!", "a script"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
)


class Kind(StrEnum):
    """The kinds of file that may hold an adapter."""

    SAFETENSORS = "safetensors"
    GGUF = "gguf"
    ZIP = "zip"
    PICKLE = "pickle"
    UNKNOWN = "unknown"
    """No magic: perhaps a pickle of protocol 0, which has none."""


def kind_of(head: bytes, *, file: str) -> Kind:
    """The kind of a file that starts with `head`, its first `HEAD_BYTES`.

    Raises:
        MalformedFile: an empty file, a placeholder, or something that is known to hold no weights.
    """
    if not head:
        raise MalformedFile("the file is empty", file=file, code="file.truncated")
    refuse_placeholder(head, file=file, expected="weights")
    if head.startswith(b"GGUF"):
        return Kind.GGUF
    if head.startswith(b"PK\x03\x04"):
        return Kind.ZIP
    # Before pickles: a header of 128 bytes makes a file start with the same two bytes as theirs.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _LARGEST_HEADER:
        return Kind.SAFETENSORS
    if head[:1] == b"\x80" and len(head) > 1 and head[1] <= _MAX_PROTOCOL:
        return Kind.PICKLE
    if found := _known_otherwise(head):
        raise not_weights(file, found)
    return Kind.UNKNOWN


def not_weights(file: str, found: str) -> MalformedFile:
    """The error for a file that holds something else than weights."""
    return MalformedFile(
        "not a weight file",
        file=file,
        expected="safetensors, a torch pickle, GGUF or npz",
        found=found,
        code="file.wrong-magic",
    )


def _known_otherwise(head: bytes) -> str | None:
    for magic, found in _NOT_WEIGHTS:
        if head.startswith(magic):
            return found
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return "JSON"
    return None
