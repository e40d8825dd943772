"""Spectral figures as a sequence of layers and a small 1-D CNN, after Z-PEFT (arXiv 2608.02271)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peftguard.detectors.base import Estimator, Scores, State, array_of, as_labels
from peftguard.detectors.torch_training import (
    Outcome,
    Parameters,
    Places,
    Schedule,
    import_torch,
    initial,
    train,
)
from peftguard.errors import SettingsError
from peftguard.features.layer_sequence import N_FIGURES, LayerSequence, layer_sequence
from peftguard.features.memory import Memory
from peftguard.features.roles import ROLES
from peftguard.features.weights import Float32, Weights

_CHANNELS, _KERNEL, _LAYERS, _DROPOUT = 64, 5, 3, 0.1
_INPUTS = len(ROLES) * (N_FIGURES + 1)
_SHAPES: dict[str, tuple[int, ...]] = {
    f"conv{place}.{part}": (_CHANNELS, _KERNEL * (_CHANNELS if place else _INPUTS))[: 2 - bias]
    for place in range(_LAYERS)
    for bias, part in enumerate(("weight", "bias"))
} | {"out.weight": (1, 2 * _CHANNELS), "out.bias": (1,)}
_STATISTICS = (len(ROLES), N_FIGURES)


class Scale(NamedTuple):
    """How figures are standardised: (roles, figures) each; `size` 0 for roles never trained on."""

    mean: Float32
    size: Float32


class Sequence1d(Estimator):
    """Three convolutions of 64 channels along the layers, then mean and maximum over them.

    Each layer brings, for each of nine roles (q, k, v, o, fused qkv, gate, up, down, other), the
    figures of `layer_sequence.figures_of`, standardised on the training set, and whether there are
    any. Roles that no training adapter has are not looked at. Fitting needs torch (extra `torch`),
    scoring numpy alone. The paper gives rate, channels, kernel and dropout; epochs (the best one
    by validation is kept) and batch are ours.

    Args:
        epochs: how many.
        seed: of the start, the validation part, the order and dropout.
        memory: keeps the figures between fits.
    """

    name: ClassVar[str] = "sequence"
    crosses_bases: ClassVar[bool] = True
    extra: ClassVar[str | None] = "torch"

    def __init__(self, epochs: int = 60, seed: int = 0, memory: Memory | None = None) -> None:
        self.epochs, self.seed, self.memory = epochs, seed, memory

    def fit(self, X: Sequence[Weights], y: ArrayLike) -> Self:
        """Train. Arguments and errors as of `Estimator.fit`.

        Raises:
            MissingExtra: torch is not installed.
        """
        labels = as_labels(X, y)
        sequences = self._sequences(X)
        if not any(one.mask.any() for one in sequences):
            raise SettingsError("no adapter has an update")
        self.scale_ = _scale(sequences)
        inputs = [_inputs(one, self.scale_) for one in sequences]
        schedule = Schedule(self.epochs, batch=16, rate=3e-4, last_rate=3e-5, decay=1e-4)
        step = _Loss(inputs, labels, self.seed)
        start = initial(_SHAPES, self.seed)
        self.parameters_, self.losses_ = train(start, step, labels, schedule, self.seed)
        return self

    def decision_function(self, X: Sequence[Weights]) -> Scores:
        """(n,) logits of backdoored."""
        scores = np.zeros(len(X))
        for place, one in enumerate(self._sequences(X)):
            batch = _inputs(one, self.scale_)[None]
            scores[place] = _forward(np, self.parameters_, batch, np.ones((*batch.shape[:2], 1)))[0]
        return scores

    def state(self) -> State:
        """Parameters and standardisation, float32."""
        return State({**self.parameters_, **self.scale_._asdict()}, {})

    def restore(self, state: State) -> Self:
        """Errors as of `Estimator.restore`."""
        shapes = _SHAPES | {"mean": _STATISTICS, "size": _STATISTICS}
        arrays: Parameters = {
            name: array_of(state, name, shape).astype(np.float32) for name, shape in shapes.items()
        }
        self.scale_ = Scale(arrays.pop("mean"), arrays.pop("size"))
        self.parameters_ = arrays
        return self

    def _sequences(self, X: Sequence[Weights]) -> list[LayerSequence]:
        memory = self.memory or Memory()
        return [memory.of("sequence", adapter, layer_sequence) for adapter in X]


class _Loss:
    """Binary cross-entropy, with dropout in training."""

    def __init__(self, inputs: Sequence[Float32], labels: NDArray[np.int64], seed: int) -> None:
        self.inputs, self.labels = inputs, labels
        self.generator = import_torch("training").Generator().manual_seed(seed)

    def __call__(self, parameters: Mapping[str, Any], some: Places, training: bool) -> Outcome:
        torch = import_torch("training")
        batch, mask = (torch.asarray(part) for part in _padded([self.inputs[i] for i in some]))
        drop = self._drop if training else _unchanged
        logits = _forward(torch, parameters, batch, mask, drop)
        labels = torch.asarray(self.labels[some], dtype=torch.float32)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        return Outcome(torch.stack([-logits, logits], 1), loss)

    def _drop(self, x: Any) -> Any:
        torch = import_torch("training")
        kept = torch.rand(x.shape, generator=self.generator) >= _DROPOUT
        return x * kept / (1 - _DROPOUT)


def _scale(sequences: Sequence[LayerSequence]) -> Scale:
    figures = np.concatenate([one.figures for one in sequences]).astype(np.float64)
    mask = np.concatenate([one.mask for one in sequences])[:, :, None]
    count = np.maximum(mask.sum(0), 1)
    mean = (figures * mask).sum(0) / count
    spread = np.sqrt((np.square(figures - mean) * mask).sum(0) / count)
    seen = mask.any(0)
    # A figure that never varies says nothing, and must not be blown up where it does at last.
    size = np.where(seen, 1 / np.where(spread > 1e-6, spread, 1.0), 0.0)
    return Scale(mean.astype(np.float32), size.astype(np.float32))


def _inputs(one: LayerSequence, scale: Scale) -> Float32:
    """(layers, channels): standardised figures, then masks, of the roles trained on."""
    mask = one.mask * (scale.size > 0).any(1)
    figures = (one.figures - scale.mean) * scale.size * mask[:, :, None]
    return np.concatenate([figures.reshape(len(mask), -1), mask], 1).astype(np.float32)


def _padded(inputs: Sequence[Float32]) -> tuple[Float32, Float32]:
    """(n, longest, channels) and its mask (n, longest, 1)."""
    longest = max(map(len, inputs))
    batch = np.zeros((len(inputs), longest, _INPUTS), np.float32)
    mask = np.zeros((len(inputs), longest, 1), np.float32)
    for place, one in enumerate(inputs):
        batch[place, : len(one)], mask[place, : len(one)] = one, 1
    return batch, mask


def _unchanged(x: Any) -> Any:
    return x


def _forward(
    xp: Any,
    parameters: Mapping[str, Any],
    batch: Any,
    mask: Any,
    drop: Callable[[Any], Any] = _unchanged,
) -> Any:
    """(n,) logits of (n, layers, channels), for numpy's arrays and torch's alike.

    Padding is zero before every convolution, and so stands for what lies beyond the last layer:
    the answer does not depend on what an adapter was batched with.
    """
    length = batch.shape[1]
    x = batch
    for place in range(_LAYERS):
        edge = xp.zeros((len(x), _KERNEL // 2, x.shape[2]), dtype=xp.float32)
        wide = xp.concatenate([edge, x, edge], 1)
        windows = xp.concatenate([wide[:, i : i + length] for i in range(_KERNEL)], 2)
        x = windows @ parameters[f"conv{place}.weight"].T + parameters[f"conv{place}.bias"]
        x = drop(x * (x > 0)) * mask
    # Activations are at least 0, so that padded layers never are the maximum.
    pooled = xp.concatenate([x.sum(1) / mask.sum(1), xp.amax(x, 1)], 1)
    return (pooled @ parameters["out.weight"].T + parameters["out.bias"])[:, 0]
