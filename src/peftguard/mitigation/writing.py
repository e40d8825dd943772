"""Write a cleaned adapter beside its record: a folder that PEFT loads, and nothing that runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.adapter import Adapter
from peftguard.adapters.filenames import CONFIG, WEIGHTS
from peftguard.adapters.jsonfile import load_json
from peftguard.errors import MalformedFile, SettingsError
from peftguard.limits import Limits
from peftguard.mitigation.factored import Factored
from peftguard.verdict.checks import check_imports

_CODE_KEYS = ("auto_map", "auto_mapping", "megatron_config", "megatron_core")
_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def settings_of(adapter: Adapter) -> tuple[dict[str, Any], list[str]]:
    """Its `adapter_config.json` as data, without what makes PEFT import code, and what that was.

    Raises:
        InputError: it cannot be read.
    """
    path = adapter.source.config
    assert path is not None  # noqa: S101 - `read_factored` refuses an adapter without
    config = load_json(path, file=path.name, limits=Limits())
    dropped = [key for key in _CODE_KEYS if key in config] if any(check_imports(config)) else []
    return {key: value for key, value in config.items() if key not in dropped}, dropped


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes its place at the end; on an error nothing is left of it.

    Raises:
        SettingsError: the folder is there already, or the disk refuses.
    """
    if folder.exists() or folder.is_symlink():
        raise SettingsError(f"{folder}: is there already; nothing is overwritten")
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(folder)
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_adapter(
    cleaned: Factored, original: Adapter, config: Mapping[str, Any], folder: Path
) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`.

    Tensors have the names, shapes and number types of the original's.

    Args:
        cleaned: what to write.
        original: open; the adapter it was made of.
        config: its settings.
        folder: is there, and empty.

    Raises:
        MalformedFile: a weight is too large for the original's number type.
        OSError: the disk refuses.
    """
    from safetensors.numpy import save_file

    tensors = {name: _as_stored(name, value, original) for name, value in cleaned.tensors().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _as_stored(name: str, value: NDArray[np.generic], original: Adapter) -> NDArray[np.generic]:
    """In the number type and shape of the original's tensor, in one piece of memory."""
    import ml_dtypes

    info = original.container.tensors[name]
    if info.dtype not in _DTYPES:
        return np.ascontiguousarray(value)
    dtype = ml_dtypes.bfloat16 if info.dtype == "BF16" else _DTYPES[info.dtype]
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(value.astype(dtype).reshape(info.shape))
    if not np.isfinite(stored.astype(np.float32)).all():
        raise MalformedFile(
            "a cleaned weight is too large for the file's number type",
            file=original.source.target,
            key=name,
            found=info.dtype,
        )
    return stored
