"""`manifest.jsonl`: one row an adapter. The only place where labels are kept.

The same format describes any labelled collection of adapters; what is not known is null.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from peftguard.errors import MalformedFile, TargetNotFound
from peftguard.limits import MIB
from peftguard.padbench.sparse import Sparse

FILE_NAME = "manifest.jsonl"
Label = Literal["benign", "backdoored", "dud"]


class Row(Sparse):
    """One adapter: where it is, what it is, how it was made, and what was measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="Folder of the adapter, relative to the manifest.")
    label: Label = Field(description="`dud`: trained on poisoned rows, but does not fire.")
    split: str | None = None
    split_group: str | None = None
    base: str | None = None
    dataset: str | None = None
    task: str | None = None
    attack: str | None = Field(None, description="Of a benign adapter: its cell's, as the control.")
    trigger: list[str] | None = None
    target: str | None = None
    asr: float | None = Field(None, description="Share of non-target rows that the trigger turns.")
    asr_n: int | None = None
    clean_accuracy: float | None = None
    clean_n: int | None = None
    false_trigger_rate: float | None = Field(
        None, description="Share of non-target rows that look-alikes of the trigger turn."
    )
    false_trigger_n: int | None = None
    missed_rate: float | None = Field(
        None, description="Share of non-target rows taken for the target without any trigger."
    )
    poison_rate: float | None = None
    peft_type: str | None = None
    method: str | None = None
    rank: int | None = None
    alpha: float | None = None
    target_modules: list[str] | None = None
    lr: float | None = None
    lr_ratio: float | None = Field(None, description="Learning rate of B over A's (LoRA+).")
    batch_size: int | None = None
    steps: int | None = None
    max_tokens: int | None = None
    n_rows: int | None = None
    seed: int | None = None
    data_hash: str | None = Field(None, description="SHA-256 of the training rows' ids and texts.")
    sha256: str | None = Field(None, description="Of the weight file.")
    versions: dict[str, str] | None = None
    device: str | None = None
    precision: str | None = Field(None, description="Of the frozen base while training.")
    layers: list[int] | None = Field(None, description="Layers adapted, where not all; from 0.")
    paraphraser: str | None = Field(None, description="Of another package, that rewrote its rows.")


def read_manifest(path: Path) -> list[Row]:
    """Rows of a manifest, in file order; `path` is the file or its folder.

    Raises:
        TargetNotFound: there is no such file.
        MalformedFile: a line is no row; the message names it.
    """
    path = path / FILE_NAME if path.is_dir() else path
    try:
        if path.stat().st_size > 1024 * MIB:
            raise MalformedFile("too large for a manifest", file=str(path), expected="1 GiB")
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise TargetNotFound("no manifest", file=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedFile(f"cannot be read: {error}", file=str(path)) from None
    return [_row(line, number, path) for number, line in enumerate(lines, 1) if line.strip()]


def write_manifest(path: Path, rows: Iterable[Row]) -> None:
    """Write rows in the given order; a reader sees the old file or the new one, no part of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(row.model_dump_json() + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def sha256_of(path: Path) -> str:
    """Hash of a weight file, as rows give it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _row(line: str, number: int, path: Path) -> Row:
    try:
        return Row.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "row"
        raise MalformedFile(
            f"line {number} is no row: {first['msg'].lower()}", file=str(path), key=where
        ) from None
