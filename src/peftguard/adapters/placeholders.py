"""Text that lies where a file should be: a git-LFS pointer, or the page of a failed download."""

from __future__ import annotations

from peftguard.errors import MalformedFile

_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml")


def refuse_placeholder(head: bytes, *, file: str, expected: str) -> None:
    """Raise `MalformedFile` if a file that starts with `head` only stands for the real one."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64]
    if start.startswith(_POINTER):
        raise MalformedFile(
            "the real file was not fetched",
            file=file,
            expected=expected,
            found="a git-LFS pointer",
            code="file.lfs-pointer",
        )
    if start.lower().startswith(_PAGES):
        raise MalformedFile(
            "a failed download",
            file=file,
            expected=expected,
            found="an HTML page",
            code="file.wrong-magic",
        )
