"""Where a file of an adapter lies, as a URI; what a stranger named is percent-encoded."""

from __future__ import annotations

import posixpath
from urllib.parse import quote

from peftguard.results import Origin, Result


def uri_of(result: Result, file: str | None) -> str:
    """URI of a file of the adapter, or of the adapter itself: relative as the target was given.

    Absolute paths become `file:` URIs, and files from the hub are given at their commit.

    Args:
        result: whose file it is; its target is the adapter's folder, or one of its files.
        file: path relative to the adapter's folder, as in findings and digests.
    """
    if result.origin is not None:
        return hub_uri(result.origin, file)
    path = _path(result, file)
    encoded = _quoted(path)
    return f"file://{encoded}" if path.startswith("/") else encoded


def hub_uri(origin: Origin, file: str | None = None) -> str:
    """The hub's page of a file at that commit, or of the whole repository."""
    base = f"https://huggingface.co/{_quoted(origin.repo)}"
    if file is None:
        return f"{base}/tree/{_quoted(origin.revision)}"
    return f"{base}/blob/{_quoted(origin.revision)}/{_quoted(file)}"


def _path(result: Result, file: str | None) -> str:
    """A finding about the input as a whole may name the target itself as its file."""
    target = result.target
    folder, name = posixpath.split(target)
    if file is None or file in (target, name):
        return target
    is_file = name in {digest.path for digest in result.files}
    return posixpath.join(folder if is_file else target, file.lstrip("/"))


def _quoted(path: str) -> str:
    return quote(path.encode("utf-8", "surrogatepass"), safe="/")
