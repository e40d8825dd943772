"""What lies at the path of a weight file and is something else."""

from __future__ import annotations

from functools import partial

from tests.hostile.archives import zip_of
from tests.hostile.base import HostileFile, holding
from tests.hostile.headers import simple_safetensors
from tests.hostile.pickles import protocol_2, torch_zip, write_evil

LFS_POINTER = b"""version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 26214400
"""
HTML = b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n"


def files() -> dict[str, HostileFile]:
    tar = b"adapter/".ljust(257, b"\0") + b"ustar\x0000".ljust(255, b"\0")
    wrong = {
        "html": HTML,
        "html-with-bom": b"\xef\xbb\xbf  <html>",
        "json": b'{"error": "Repository not found"}',
        "json-list": b"[1, 2]",
        "text": b"copyright notice\nof some file\nthat is no weights.",
        "zeros": b"\0" * 4096,
        "gzip": b"\x1f\x8b\x08" + b"\0" * 32,
        "tar": tar,
        "hdf5": b"\x89HDF\r\n\x1a\n" + b"\0" * 32,
        "program": b"\x7fELF" + b"\0" * 64,
        "zip-of-text": zip_of({"readme.txt": b"hello"}),
        "empty-zip": zip_of({}),
    }
    files = {
        f"not-weights-{key}": HostileFile("adapter_model.bin", holding(data), "file.wrong-magic")
        for key, data in wrong.items()
    }
    pointer = holding(LFS_POINTER)
    return files | {
        "lfs-pointer": HostileFile("adapter_model.safetensors", pointer, "file.lfs-pointer"),
        "lfs-pointer-bin": HostileFile("adapter_model.bin", pointer, "file.lfs-pointer"),
    }


def lying_suffixes() -> dict[str, HostileFile]:
    file, code = holding(simple_safetensors()), "file.wrong-magic"
    return {
        "safetensors-named-bin": HostileFile("adapter_model.bin", file, code, loads=True),
        "safetensors-named-gguf": HostileFile("adapter.gguf", file, code, loads=True),
        "pickle-named-safetensors": HostileFile(
            "adapter_model.safetensors", holding(torch_zip()), code, True, "torch"
        ),
        "evil-pickle-named-safetensors": HostileFile(
            "adapter_model.safetensors", partial(write_evil, protocol_2), "file.executes-code"
        ),
    }
