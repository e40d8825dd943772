"""Files like torch's whose zip directory lies."""

from __future__ import annotations

import zipfile

from tests.hostile.archives import zip_of
from tests.hostile.base import MIB, HostileFile, holding
from tests.hostile.pickles import TENSOR_PICKLE, torch_zip


def files() -> dict[str, HostileFile]:
    bad = "file.malformed"
    members = {"archive/data.pkl": TENSOR_PICKLE, "archive/data/0": b"\0" * 8}
    bomb = {**members, "archive/data/0": b"\0" * 32 * MIB}
    whole = torch_zip()
    archives = {
        "zip-bomb": (zip_of(bomb, compression=zipfile.ZIP_DEFLATED), bad),
        "zip-encrypted": (zip_of(members, edit=_claim_encrypted), bad),
        "zip-overlap": (zip_of(members, edit=_overlap), bad),
        "zip-lies-about-size": (zip_of(members, edit=_grow), bad),
        "zip-past-the-end": (zip_of(members, edit=_grow_both), "file.truncated"),
        "zip-directory-renames": (zip_of(members, edit=_rename), bad),
        "zip-with-prefix": (b"PK\x03\x04" + b"\0" * 60 + whole, bad),
        "zip-with-comment": (whole[:-2] + b"\x04\0abcd", "file.truncated"),
        "zip-truncated": (whole[:-30], "file.truncated"),
        "zip-start-only": (whole[:40], "file.truncated"),
        "zip-no-directory": (b"PK\x03\x04" + whole[-22:], bad),
    }
    return {
        key: HostileFile("adapter_model.bin", holding(data), code)
        for key, (data, code) in archives.items()
    }


def _claim_encrypted(archive: zipfile.ZipFile) -> None:
    archive.filelist[0].flag_bits |= 1


def _overlap(archive: zipfile.ZipFile) -> None:
    archive.filelist[1].header_offset = archive.filelist[0].header_offset


def _grow(archive: zipfile.ZipFile) -> None:
    archive.filelist[1].file_size = 1 << 40


def _grow_both(archive: zipfile.ZipFile) -> None:
    archive.filelist[1].file_size = archive.filelist[1].compress_size = 1 << 40


def _rename(archive: zipfile.ZipFile) -> None:
    archive.filelist[1].filename = "archive/data/1"
