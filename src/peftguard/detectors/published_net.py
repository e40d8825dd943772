"""The network of the PEFTGuard paper: one forward pass, for numpy's arrays and torch's alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftguard.detectors.convolution import Tower, convolve
from peftguard.features.weights import Weights

HIDDEN, EMBEDDED, CLASSES = 512, 128, 2


@dataclass(frozen=True)
class Network:
    """Its architecture.

    Args:
        towers: an image and its FC 512 each; their answers are concatenated.
        gain: what multiplies every update before it goes in.
    """

    towers: Sequence[Tower]
    gain: float = 1.0

    def tower_names(self) -> list[tuple[str, str]]:
        """Names of each tower's layers: plain for a single one, as in the released state dicts."""
        if len(self.towers) == 1:
            return [("conv1", "fc1")]
        return [(f"conv1_{place}", f"fc1_{place}") for place in range(len(self.towers))]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter by its name in a state dict."""
        layers: dict[str, tuple[int, ...]] = {}
        for tower, (conv, dense) in zip(self.towers, self.tower_names(), strict=True):
            kernel = (tower.conv.kernel,) * 2
            layers[conv] = (tower.conv.filters, len(tower.modules), *kernel)
            layers[dense] = (HIDDEN, tower.width)
        layers |= {"fc2": (EMBEDDED, HIDDEN * len(self.towers)), "fc3": (CLASSES, EMBEDDED)}
        return {
            f"{layer}.{part}": shape if part == "weight" else shape[:1]
            for layer, shape in layers.items()
            for part in ("weight", "bias")
        }

    def forward(
        self, xp: Any, parameters: Mapping[str, Any], adapters: Sequence[Weights]
    ) -> tuple[Any, Any]:
        """Logits (n, 2) and embeddings (n, 128) of n adapters.

        Args:
            xp: numpy or torch, whose arrays the parameters are.
            parameters: float32, shaped as `shapes` says.
            adapters: n of them.
        """
        hidden = []
        for tower, (conv, dense) in zip(self.towers, self.tower_names(), strict=True):
            filters = parameters[f"{conv}.weight"], parameters[f"{conv}.bias"]
            images = [convolve(xp, tower, *filters, adapter, self.gain) for adapter in adapters]
            # The convolution has no activation: this is linear in the update up to here.
            hidden.append(_leaky(xp, _dense(parameters, dense, xp.stack(images))))
        embedding = _leaky(xp, _dense(parameters, "fc2", xp.concatenate(hidden, 1)))
        return _dense(parameters, "fc3", embedding), embedding


def _dense(parameters: Mapping[str, Any], layer: str, x: Any) -> Any:
    return x @ parameters[f"{layer}.weight"].T + parameters[f"{layer}.bias"]


def _leaky(xp: Any, x: Any) -> Any:
    return xp.maximum(x, 0.01 * x)
