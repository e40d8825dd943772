"""Write an adapter that was changed as a folder that peft loads, and read one that is to be."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from peftguard.adapters.adapter import open_adapter
from peftguard.adapters.filenames import CONFIG, WEIGHTS
from peftguard.adapters.jsonfile import load_json
from peftguard.limits import Limits
from peftguard.mitigation.factored import Factored, Layer, read_factored


@dataclass(frozen=True, slots=True, eq=False)
class Original:
    """An adapter that is to be changed, read whole; its files are not touched again.

    Args:
        factored: its factors and other tensors.
        config: `adapter_config.json` as it is.
        base_model: as it claims it.
        peft_type: `LORA` or `ADALORA`.
    """

    factored: Factored
    config: Mapping[str, Any]
    base_model: str | None
    peft_type: str


def read_original(folder: Path) -> Original:
    """Read a PEFT folder.

    Raises:
        InputError: as of `open_adapter` and `read_factored`.
    """
    with open_adapter(folder) as adapter:
        factored = read_factored(adapter)
        path = adapter.source.config
        assert path is not None  # noqa: S101 - `read_factored` has refused the rest
        config = load_json(path, file=path.name, limits=Limits())
        return Original(factored, config, adapter.base_model, adapter.peft_type)


def write_changed(changed: Factored, original: Original, folder: Path) -> Path:
    """Write a changed adapter, float32, all or nothing; what stood there before is replaced.

    Its settings are the original's, but for ranks and scales, which are those of its layers.

    Raises:
        OSError: the disk refuses.
    """
    from safetensors.numpy import save_file

    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}")
    temporary.mkdir(parents=True)
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in changed.tensors().items()}
    save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
    layers = list(changed.layers.values())
    settings = _adalora if original.peft_type == "ADALORA" else _lora
    config = {**original.config, **settings(layers, original.config)}
    (temporary / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder


def _lora(layers: list[Layer], config: Mapping[str, Any]) -> dict[str, Any]:
    """One rank and alpha where all layers share them; else those of each by its name."""
    root = bool(config.get("use_rslora"))
    ranks = {layer.module: layer.rank for layer in layers}
    alphas = {
        layer.module: layer.scale * (math.sqrt(layer.rank) if root else layer.rank)
        for layer in layers
    }
    return {
        "r": max(ranks.values()),
        "lora_alpha": next(iter(alphas.values())),
        "rank_pattern": ranks if len(set(ranks.values())) > 1 else {},
        "alpha_pattern": alphas if len(set(alphas.values())) > 1 else {},
    }


def _adalora(layers: list[Layer], config: Mapping[str, Any]) -> dict[str, Any]:
    """PEFT makes layers of rank `init_r`, keeps of each what its mask says, and scales by both."""
    start = max(int(config["init_r"]), max(layer.rank for layer in layers))
    masks = {
        f"{layer.module}.lora_E": [place < layer.rank for place in range(start)] for layer in layers
    }
    alpha = layers[0].scale * (start + 1e-5)
    return {"init_r": start, "lora_alpha": alpha, "rank_pattern": masks}
