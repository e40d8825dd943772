"""Every hostile file we know of, as functions that write it, with the code it must get.

    for name, hostile in hostile_files().items():
        path = folder / hostile.file_name
        hostile.write(path)

None of the builders needs torch or gguf.
"""

from __future__ import annotations

import os

from tests.hostile import archives, ggufs, headers, mistaken, pickles, torch_archives
from tests.hostile.base import MIB, HostileFile, Write
from tests.hostile.mistaken import HTML, LFS_POINTER


def hostile_files() -> dict[str, HostileFile]:
    """All of them, by name. Those that `need` a package are judged further only where it is."""
    return {
        **headers.files(),
        **mistaken.files(),
        **mistaken.lying_suffixes(),
        **pickles.files(),
        **torch_archives.files(),
        **ggufs.files(),
        **archives.files(),
    }


def special_files() -> dict[str, tuple[Write, str]]:
    """What lies at the path of a weight file and is none: name -> (write, code)."""
    return {
        "named-pipe": (os.mkfifo, "file.malformed"),
        "folder": (os.mkdir, "file.malformed"),
        "device": (lambda path: path.symlink_to("/dev/zero"), "file.malformed"),
        "dangling-link": (lambda path: path.symlink_to("nowhere"), "file.not-found"),
        "link-to-itself": (lambda path: path.symlink_to(path.name), "file.not-found"),
        "missing": (lambda path: None, "file.not-found"),
    }


def hostile_json() -> dict[str, tuple[bytes, str]]:
    """Texts in place of an adapter_config.json, with the code of the error."""
    return {
        "empty": (b"", "file.malformed"),
        "list": (b"[1]", "file.malformed"),
        "not-utf8": (b'{"a": "\xff"}', "file.malformed"),
        "utf16": ('{"a": 1}'.encode("utf-16"), "file.malformed"),
        "deep-lists": (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "file.limit-reached"),
        "deep-objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "file.limit-reached"),
        "deep-unclosed": (b"[" * 100_000, "file.limit-reached"),
        "duplicate": (b'{"r": 8, "r": 64}', "file.duplicate-key"),
        "duplicate-escaped": (rb'{"r": 8, "\u0072": 64}', "file.duplicate-key"),
        "duplicate-inside": (b'{"a": [{"r": 8, "r": 8}]}', "file.duplicate-key"),
        "huge-integer": (b'{"r": ' + b"9" * 100_000 + b"}", "file.malformed"),
        "cut-short": (b'{"r": 8, "lora_al', "file.malformed"),
        "trailing": (b'{"r": 8} {"r": 64}', "file.malformed"),
        "too-large": (b'{"a": "' + b"x" * (4 * MIB) + b'"}', "file.limit-reached"),
        "quotes": (b'{"' + b'\\"' * MIB, "file.malformed"),
        "lfs-pointer": (LFS_POINTER, "file.lfs-pointer"),
        "html": (HTML, "file.wrong-magic"),
    }
