"""A convolution over the image whose channels are updates, computed from their factors.

For one filter, the answer at (i, j) is the sum over channels c, offsets u, v and rank r of
K[c, u, v] B_c[s i + u, r] A_c[r, s j + v]. Contracting u first and (r, v) after it costs
filters * H * W * k * r multiplications a channel and holds filters * H * r * k numbers at a time.
The dense road costs out * in * r to build an update and filters * H * W * k^2 to convolve it: for
the paper's 16 filters of 8 x 8 that is 2.5 times as much at rank 4, as much at rank 16, half at
rank 256, and always the memory of the updates. Conv and FC1 as one linear map would be 512 dense
matrices a channel, dearer than both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from peftguard.errors import SettingsError
from peftguard.features.inner_product import Site
from peftguard.features.weights import Factors, Float32, Weights

_LONGEST = 640
"""Most steps along one side: those of the largest published network, at width 5120."""


class Conv(NamedTuple):
    """A square convolution: number of filters, side of the kernel, stride, padding."""

    filters: int
    kernel: int
    stride: int
    padding: int

    def extent(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the answer to an update of that shape; below 1 where the kernel is larger."""
        high, wide = ((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in shape)
        return high, wide


class Tower(NamedTuple):
    """One image: modules of the same shape, which are its channels, and their convolution."""

    modules: tuple[str, ...]
    shape: tuple[int, int]
    conv: Conv

    @property
    def width(self) -> int:
        """Numbers in the answer of the convolution."""
        return self.conv.filters * math.prod(self.conv.extent(self.shape))

    @property
    def fits(self) -> bool:
        """Whether there is such a convolution, and it has an answer."""
        possible = min(self.conv[:3]) >= 1 and self.conv.padding >= 0
        return possible and min(self.conv.extent(self.shape)) >= 1


def published_conv(shape: tuple[int, int]) -> Conv:
    """The paper's convolution for an update of that shape.

    768-wide bases (RoBERTa, ViT) have 24 filters of 3 x 3, stride 2; T5's 2048 has 32 of 8 x 8,
    stride 8; all others 16 of 8 x 8, stride 8. Shapes that the paper has not follow the others,
    with a smaller kernel where a side is shorter than 8, and a larger one where a side would take
    more than 640 steps, as many as the largest published network has.
    """
    if shape == (768, 768):
        return Conv(24, 3, 2, 1)
    side = max(1, min(max(8, math.ceil(max(shape) / _LONGEST)), *shape))
    return Conv(32 if shape == (2048, 2048) else 16, side, side, 0)


def towers_of(sites: Sequence[Site], conv: Sequence[int] | None) -> list[Tower]:
    """One tower a shape, in the order of their first modules.

    Args:
        sites: modules in the order of their channels.
        conv: filters, kernel, stride and padding of every tower; None: as published for the shape.

    Raises:
        SettingsError: `conv` is no convolution, or an update is smaller than its kernel.
    """
    if conv is not None and len(conv) != 4:
        raise SettingsError(f"conv: expected filters, kernel, stride, padding; found {conv}")
    modules: dict[tuple[int, int], list[str]] = {}
    for site in sites:
        modules.setdefault(site.shape, []).append(site.module)
    towers = [
        Tower(tuple(names), shape, Conv(*conv) if conv is not None else published_conv(shape))
        for shape, names in modules.items()
    ]
    for tower in towers:
        if not tower.fits:
            raise SettingsError(f"conv: {tuple(tower.conv)} does not fit {tower.shape}")
    return towers


def convolve(xp: Any, tower: Tower, weight: Any, bias: Any, adapter: Weights, gain: float) -> Any:
    """(filters * H * W,) answer to one adapter; modules that it has not are channels of zeros.

    Args:
        xp: numpy, or torch where gradients are needed; its arrays go in and come out.
        tower: what to look at.
        weight: (filters, channels, k, k) float32.
        bias: (filters,) float32.
        adapter: its factors.
        gain: what multiplies every update.
    """
    high, wide = tower.conv.extent(tower.shape)
    answer = xp.zeros((tower.conv.filters * high, wide), dtype=xp.float32)
    for module, kernel in zip(tower.modules, weight.swapaxes(0, 1), strict=True):
        factors = Site(module, tower.shape).factors(adapter)
        if factors is not None:
            rows, columns = (xp.asarray(part) for part in _strips(factors, tower.conv, gain))
            answer = answer + (rows @ kernel).reshape(len(answer), -1) @ columns
    return (answer.reshape(tower.conv.filters, -1) + bias[:, None]).reshape(-1)


def _strips(factors: Factors, conv: Conv, gain: float) -> tuple[Float32, Float32]:
    """What the kernel sees of B, as (H r, k), and of A, as (r k, W)."""
    B, A = np.float32(gain) * factors.B, factors.A
    rows = _windows(B, conv).reshape(-1, conv.kernel)
    columns = _windows(A.T, conv).transpose(1, 2, 0).reshape(-1, conv.extent(factors.shape)[1])
    return np.array(rows), np.array(columns)  # views of windows are read-only, which torch minds


def _windows(factor: Float32, conv: Conv) -> NDArray[np.float32]:
    """(steps, r, k) windows along the first axis of (n, r)."""
    padded = np.pad(factor, ((conv.padding,) * 2, (0, 0)))
    return sliding_window_view(padded, conv.kernel, axis=0)[:: conv.stride]
