"""Write an adapter as peft writes it, all or nothing, and read its tensors back."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from peftguard.adapters.filenames import CONFIG, WEIGHTS
from peftguard.padbench.training.peft_config import peft_config
from peftguard.padbench.training.trained import TrainedAdapter

if TYPE_CHECKING:
    import torch

_STALE = 3600.0
"""Seconds after which a temporary folder is taken to be a killed writer's."""


def save_adapter(trained: TrainedAdapter, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` (float16) into `folder`.

    They appear together or not at all; what stood there before is replaced, and what killed writers
    left beside it is removed after an hour. The same adapter gives the same bytes. Nothing in them
    tells the label, the attack or the trigger.

    Raises:
        OSError: the disk refuses.
    """
    import torch
    from safetensors.torch import save_file

    _remove_stale(folder)
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}")
    temporary.mkdir(parents=True)
    tensors = {name: tensor.to(torch.float16) for name, tensor in trained.tensors.items()}
    save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
    text = json.dumps(_config(trained), indent=2, sort_keys=True)
    (temporary / CONFIG).write_text(text, encoding="utf-8")
    for file in temporary.iterdir():
        _to_disk(file)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    _to_disk(folder.parent)


def saved_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of a folder that `save_adapter` wrote, in float16."""
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = load_file(folder / WEIGHTS)
    return tensors


def _remove_stale(folder: Path) -> None:
    """Remove old temporary folders; a young one may be another process's at work."""
    oldest = time.time() - _STALE
    for path in folder.parent.glob(f".{glob.escape(folder.name)}.*"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it first
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path, ignore_errors=True)


def _config(trained: TrainedAdapter) -> dict[str, Any]:
    config = peft_config(
        trained.recipe,
        base_model=trained.base_model,
        task_type=trained.task_type,
        rank_pattern=trained.rank_pattern,
        trained=True,
    )
    values: dict[str, Any] = config.to_dict()
    # peft writes its sets in whatever order they hash to.
    return {name: sorted(v) if isinstance(v, set) else v for name, v in values.items()}


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
