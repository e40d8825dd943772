"""Where each parameter of an adapter lies in one flat row, and what peft calls it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from peftguard.adapters.keys.peft import PREFIX
from peftguard.errors import SettingsError
from peftguard.padbench.recipe import Method

if TYPE_CHECKING:
    import torch
    from torch import nn

Shape = tuple[int, ...]
Parts = dict[str, dict[str, "torch.Tensor"]]
"""Tensors by module, then by part: `A`, `B`, `E`, `magnitude`, or a parameter of the head."""

_LAYER = re.compile(r"(.*?\.[^.]*)\.(\d+)\.")
"""Stack and number of a module's layer, as peft reads them."""


class Slot(NamedTuple):
    """One parameter of an adapter."""

    module: str
    part: str
    shape: Shape

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True, slots=True)
class Layout:
    """All parameters of adapters of one rank, in the order of the model's modules, head last.

    Args:
        method: decides which parts a module has.
        slots: the parameters.
        head: name of the classifier head, None without one.
    """

    method: Method
    slots: tuple[Slot, ...]
    head: str | None

    @property
    def sizes(self) -> list[int]:
        """Elements of each slot."""
        return [slot.size for slot in self.slots]

    def split(self, flat: torch.Tensor) -> Parts:
        """Views of (K, P), as (K, *shape) each."""
        parts: Parts = {}
        for slot, piece in zip(self.slots, flat.split(self.sizes, dim=1), strict=True):
            parts.setdefault(slot.module, {})[slot.part] = piece.view(len(flat), *slot.shape)
        return parts

    def row(self, parts: Parts) -> torch.Tensor:
        """One adapter as a flat row (P,); parts of a lower rank are padded with zeros."""
        import torch

        row = torch.zeros(sum(self.sizes))
        for slot, piece in zip(self.slots, row.split(self.sizes), strict=True):
            tensor = parts[slot.module][slot.part]
            piece.view(slot.shape)[tuple(map(slice, tensor.shape))] = tensor
        return row

    def unpadded(self, row: torch.Tensor, own: Layout) -> Parts:
        """Inverse of `row` for an adapter whose own layout is `own`: copies, on the CPU."""
        parts: Parts = {}
        pieces = row.detach().cpu().split(self.sizes)
        for slot, piece, mine in zip(self.slots, pieces, own.slots, strict=True):
            view = piece.view(slot.shape)[tuple(map(slice, mine.shape))]
            parts.setdefault(slot.module, {})[slot.part] = view.clone()
        return parts


def layer_of(name: str) -> tuple[str, int] | None:
    """Stack (`bert.encoder.layer`) and number of the layer that a module lies in."""
    match = _LAYER.match(name)
    return None if match is None else (match[1], int(match[2]))


def targets(
    model: nn.Module, target_modules: tuple[str, ...], layers: tuple[int, ...] | None = None
) -> dict[str, nn.Linear]:
    """Linear layers that peft would adapt: named so, or ending in a dot and that name.

    Args:
        model: the base.
        target_modules: names.
        layers: numbers of the layers to adapt; None: all.

    Raises:
        SettingsError: nothing matches, not in every layer asked for, or something that is no linear
            layer does.
    """
    from torch import nn

    from peftguard.padbench.training.base import HEADS

    found = {}
    for name, module in model.named_modules():
        in_head = name.split(".")[0] in HEADS
        if in_head or not any(f".{name}".endswith(f".{target}") for target in target_modules):
            continue
        place = layer_of(name)
        if layers is not None and (place is None or place[1] not in layers):
            continue
        if not isinstance(module, nn.Linear):
            raise SettingsError(f"target module {name} is a {type(module).__name__}, not Linear")
        found[name] = module
    if not found and layers is None:
        raise SettingsError(f"no module of the base is named {', '.join(target_modules)}")
    there = {place[1] for name in found if (place := layer_of(name)) is not None}
    absent = [layer for layer in layers or () if layer not in there]
    if absent:
        raise SettingsError(f"no {', '.join(target_modules)} in layer {absent[0]} of the base")
    return found


def layout(
    method: Method,
    linears: Mapping[str, nn.Linear],
    rank: int,
    head: tuple[str, nn.Module] | None,
) -> Layout:
    """The layout of adapters of one method and rank; `head` is the head's name and module."""
    slots = []
    for name, linear in linears.items():
        slots += [Slot(name, "A", (rank, linear.in_features))]
        slots += [Slot(name, "B", (linear.out_features, rank))]
        if method is Method.ADALORA:
            slots += [Slot(name, "E", (rank, 1))]
        if method is Method.DORA:
            slots += [Slot(name, "magnitude", (linear.out_features,))]
    if head is not None:
        name, module = head
        slots += [Slot(name, part, tuple(p.shape)) for part, p in module.named_parameters()]
    return Layout(method, tuple(slots), head[0] if head else None)


def saved_names(parts: Parts, method: Method, head: str | None) -> dict[str, torch.Tensor]:
    """Tensors under the names that peft gives them in `adapter_model.safetensors`."""
    return {
        PREFIX + _saved_name(module, part, method, head): tensor
        for module, named in parts.items()
        for part, tensor in named.items()
    }


def parts_of(saved: Mapping[str, torch.Tensor], layout: Layout) -> Parts:
    """Inverse of `saved_names`: float32, at the ranks they were saved with."""
    parts: Parts = {}
    for slot in layout.slots:
        name = _saved_name(slot.module, slot.part, layout.method, layout.head)
        parts.setdefault(slot.module, {})[slot.part] = saved[PREFIX + name].float()
    return parts


def _saved_name(module: str, part: str, method: Method, head: str | None) -> str:
    if module == head:
        return f"{module}.{part}"
    if part == "magnitude":
        return f"{module}.lora_magnitude_vector"
    return f"{module}.lora_{part}" + ("" if method is Method.ADALORA else ".weight")
