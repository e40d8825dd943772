"""Write an adapter as peft writes it, all or nothing, and read its tensors back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftguard.padbench.training.peft_config import peft_config
from peftguard.padbench.training.trained import TrainedAdapter

if TYPE_CHECKING:
    import torch

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILE = "adapter_model.safetensors"


def save_adapter(trained: TrainedAdapter, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` (float16) into `folder`.

    They appear together or not at all; what stood there before is replaced. The same adapter gives
    the same bytes. Nothing in them tells the label, the attack or the trigger.

    Raises:
        OSError: the disk refuses.
    """
    import torch
    from safetensors.torch import save_file

    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors = {name: tensor.to(torch.float16) for name, tensor in trained.tensors.items()}
    save_file(tensors, temporary / WEIGHT_FILE, metadata={"format": "pt"})
    text = json.dumps(_config(trained), indent=2, sort_keys=True)
    (temporary / CONFIG_FILE).write_text(text, encoding="utf-8")
    for file in temporary.iterdir():
        _to_disk(file)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    _to_disk(folder.parent)


def saved_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of a folder that `save_adapter` wrote, in float16."""
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = load_file(folder / WEIGHT_FILE)
    return tensors


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
