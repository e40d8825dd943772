"""The published PEFTGuard detector's computation on one Llama-2-7B q+v adapter, as it is defined.

Every update is multiplied out, 64 of them are stacked to one (64, 4096, 4096) image, and that goes
through a convolution and three dense layers (weights at random: only the time matters). Takes about
17 GB of memory. Run by `scan_speed.py --paper`; by itself it prints the seconds of each stage.
"""

from __future__ import annotations

import sys
import time

import torch
from safetensors.torch import load_file
from torch import nn


def network(n_modules: int, width: int) -> nn.Module:
    """Conv2d without activation, then 512, 128 and 2 units; 2.1e9 weights in the first of these."""
    flat = 16 * (width // 8) ** 2
    with torch.device("meta"):
        layers = nn.Sequential(
            nn.Conv2d(n_modules, 16, kernel_size=8, stride=8),
            nn.Flatten(),
            nn.Linear(flat, 512),
            nn.LeakyReLU(),
            nn.Linear(512, 128),
            nn.LeakyReLU(),
            nn.Linear(128, 2),
        )
    layers = layers.to_empty(device="cpu")
    for parameter in layers.parameters():
        parameter.data.fill_(1e-3)
    return layers.eval()


def main() -> None:
    start = time.perf_counter()
    tensors = load_file(sys.argv[1])
    names = sorted(name for name in tensors if "lora_A" in name)
    width = tensors[names[0]].shape[1]
    image = torch.empty(1, len(names), width, width)
    for channel, name in enumerate(names):
        B = tensors[name.replace("lora_A", "lora_B")].float()
        torch.mm(B, tensors[name].float(), out=image[0, channel])
    built = time.perf_counter()
    layers = network(len(names), width)
    loaded = time.perf_counter()
    with torch.no_grad():
        layers(image)
    done = time.perf_counter()
    print(
        f"build {built - start:.2f} s, network {loaded - built:.2f} s, pass {done - loaded:.2f} s"
    )


if __name__ == "__main__":
    main()
