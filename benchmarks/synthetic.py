"""Adapters to time with: the layout of Llama-2-7B, weights drawn from a seed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

LAYERS, WIDTH = 32, 4096
TARGETS = ("q_proj", "v_proj")


def llama_adapter(folder: Path, rank: int, seed: int) -> None:
    """Write a Llama-2-7B q+v adapter as PEFT does, in fp16, unless there is one already.

    A is as PEFT initialises it. B gets the spread of strengths that trained ones have (condition 2
    to 300 in adapters found in the wild), since well-conditioned factors are easier to decompose.
    """
    if (folder / "adapter_config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in range(LAYERS):
        for target in TARGETS:
            stem = f"base_model.model.model.layers.{layer}.self_attn.{target}.lora_"
            bound = WIDTH**-0.5
            tensors[f"{stem}A.weight"] = rng.uniform(-bound, bound, (rank, WIDTH)).astype("f2")
            tensors[f"{stem}B.weight"] = trained_B(rng, WIDTH, rank).astype("f2")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    write_config(folder, rank, TARGETS)


def trained_B(rng: np.random.Generator, out: int, rank: int) -> NDArray[np.float32]:
    """An (out, rank) matrix with entries about 0.01 and singular values over two powers of ten."""
    turn = np.linalg.qr(rng.standard_normal((rank, rank)))[0] * np.logspace(0, -2, rank)
    B: NDArray[np.float32] = rng.standard_normal((out, rank), dtype=np.float32) @ turn.T.astype(
        "f4"
    )
    return B * (0.01 / float(B.std()))


def write_config(folder: Path, rank: int, targets: tuple[str, ...]) -> None:
    """An adapter_config.json that agrees with the tensors."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "meta-llama/Llama-2-7b-hf",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.05,
        "target_modules": list(targets),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


if __name__ == "__main__":
    llama_adapter(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
