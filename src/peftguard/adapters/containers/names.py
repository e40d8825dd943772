"""Tensor names come from strangers too: which are accepted, and how they are shown."""

from __future__ import annotations

import re

from peftguard.adapters.filenames import printable
from peftguard.errors import InputError, LimitExceeded, MalformedFile
from peftguard.limits import Limits

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def shown(name: str) -> str:
    """`name` for an error: short, without control characters."""
    return printable(name[:120])


def check_name(name: str, file: str, limits: Limits) -> None:
    """Refuse a name that is too long, or that no terminal, log or C string could carry.

    Raises:
        LimitExceeded: longer than `max_name_length`.
        MalformedFile: it holds a control character or half a surrogate pair.
    """
    if len(name) > limits.max_name_length:
        raise LimitExceeded(
            "a name is too long",
            file=file,
            key=shown(name),
            expected=f"at most {limits.max_name_length} characters",
            found=f"{len(name)} characters",
        )
    if _CONTROL.search(name):
        raise MalformedFile("a name holds a control character", file=file, key=shown(name))


def too_many(file: str, found: int, limits: Limits) -> LimitExceeded:
    """The error for a file with more than `max_tensors` tensors."""
    return LimitExceeded(
        "too many tensors", file=file, expected=f"at most {limits.max_tensors}", found=str(found)
    )


def twice(file: str, name: str) -> InputError:
    """The error for a name that is given to two tensors."""
    return MalformedFile(
        "a name comes twice", file=file, key=shown(name), code="file.duplicate-key"
    )
