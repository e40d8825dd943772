"""An adapter in memory laid over its base model: what it answers, and parameters that can learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from peftguard.adapters.keys.peft import PREFIX
from peftguard.errors import UnsupportedAdapter
from peftguard.mitigation.factored import Factored, Float32, Layer
from peftguard.padbench.recipe import Method
from peftguard.padbench.training.batches import IGNORED, mean_by_row, pad, padded
from peftguard.padbench.training.layers import FleetLayer, fleet_layers, give, in_place

if TYPE_CHECKING:
    from peftguard.padbench.training.base import LoadedBase, Precision
    from peftguard.padbench.training.layout import Parts


class Running:
    """A fleet of one: the layers that train benchmarks, with a given adapter's parameters.

    Args:
        adapter: not changed.
        base: a classifier or a causal language model; as it was outside of `placed`.
        precision: of the base; the adapter's own parameters are float32.

    Raises:
        UnsupportedAdapter: it changes something that this base does not have in that size.
    """

    def __init__(self, adapter: Factored, base: LoadedBase, precision: Precision) -> None:
        self.adapter, self.base = adapter, base
        self.model: Any = base.prepared("cpu", precision)
        linears = {
            name: _linear(self.model, layer, adapter) for name, layer in adapter.layers.items()
        }
        head = None if base.head is None else (base.head, self.model.get_submodule(base.head))
        self.parts = _parts(adapter, head)
        dora = any(layer.magnitude is not None for layer in adapter.layers.values())
        method = Method.DORA if dora else Method.LORA
        self.layers: dict[str, FleetLayer] = fleet_layers(method, linears, head)

    @property
    def causal(self) -> bool:
        """Whether it writes text rather than giving classes."""
        return self.base.n_labels is None

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Every factor, magnitude and head: leaves that a training may move."""
        tensors = [tensor for parts in self.parts.values() for tensor in parts.values()]
        return [tensor for tensor in tensors if tensor.requires_grad]

    @contextmanager
    def placed(self) -> Iterator[None]:
        """The base's model computes with the adapter meanwhile."""
        with in_place(self.model, self.layers):
            yield

    def logits(self, tokens: Sequence[list[int]]) -> torch.Tensor:
        """(n, classes) of a classifier, within `placed`."""
        self._give()
        ids, mask = padded(tokens)
        logits: torch.Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return logits.float()

    def losses(self, tokens: Sequence[list[int]], labels: Sequence[list[int]]) -> torch.Tensor:
        """(n,) mean cross-entropy of every row's label, or of its completion's tokens."""
        wanted = pad(labels, IGNORED)[0]
        if not self.causal:
            return F.cross_entropy(self.logits(tokens), wanted.squeeze(1), reduction="none")
        self._give()
        # Filled on the right: a causal model never looks there, so it needs no mask.
        hidden = self.model.base_model(padded(tokens)[0], use_cache=False).last_hidden_state
        following = wanted[:, 1:]
        row, place = (following != IGNORED).nonzero(as_tuple=True)
        logits = self.model.get_output_embeddings()(hidden[row, place]).float()
        each = F.cross_entropy(logits, following[row, place], reduction="none")
        return mean_by_row(each, row, len(tokens))

    def _give(self) -> None:
        """To the layers, as those of a fleet of one."""
        parts = {
            module: {part: tensor[None] for part, tensor in own.items()}
            for module, own in self.parts.items()
        }
        give(self.layers, parts, torch.ones(1))

    def learnt(self) -> Factored:
        """The adapter with the parameters as they are now."""
        layers = {name: self._layer(layer) for name, layer in self.adapter.layers.items()}
        heads = {name: self._head(name) for name in self.adapter.heads}
        return replace(self.adapter, layers=layers, heads=heads)

    def _layer(self, layer: Layer) -> Layer:
        parts = {part: _array(tensor) for part, tensor in self.parts[layer.module].items()}
        B = (parts["B"] / layer.scale).astype(np.float32)
        return replace(layer, A=parts["A"], B=B, magnitude=parts.get("magnitude"))

    def _head(self, name: str) -> Float32:
        module, _, part = name.removeprefix(PREFIX).rpartition(".")
        return _array(self.parts[module][part])


def _parts(adapter: Factored, head: tuple[str, nn.Module] | None) -> Parts:
    """Parameters by module and part; the scale is folded into B."""
    parts: Parts = {}
    for module, layer in adapter.layers.items():
        parts[module] = {"A": _leaf(layer.A), "B": _leaf(layer.scale * layer.B)}
        if layer.magnitude is not None:
            parts[module]["magnitude"] = _leaf(layer.magnitude)
    if head is not None:
        parts[head[0]] = {
            name: _leaf(tensor.float().numpy()) for name, tensor in head[1].named_parameters()
        }
    for name, tensor in adapter.heads.items():
        module, _, part = name.removeprefix(PREFIX).rpartition(".")
        if module not in parts or part not in parts[module]:
            raise UnsupportedAdapter(
                "brings a module that cannot be trained here", file=adapter.name, key=name
            )
        parts[module][part] = _leaf(tensor)
    return parts


def _leaf(values: Float32) -> torch.Tensor:
    """A parameter; one without elements has nothing to learn."""
    return torch.tensor(values, dtype=torch.float32, requires_grad=values.size > 0)


def _array(tensor: torch.Tensor) -> Float32:
    values: Float32 = tensor.detach().numpy().copy()
    return values


def _linear(model: nn.Module, layer: Layer, adapter: Factored) -> nn.Linear:
    wanted = len(layer.B), layer.A.shape[1]
    try:
        found = model.get_submodule(layer.module)
    except AttributeError:
        found = None
    if not isinstance(found, nn.Linear) or tuple(found.weight.shape) != wanted:
        raise UnsupportedAdapter(
            "is not for this base model",
            file=adapter.name,
            key=layer.module,
            expected=f"a linear layer of {wanted}",
            found=type(found).__name__ if found is not None else "nothing",
        )
    return found
