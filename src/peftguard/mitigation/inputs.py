"""What modules of a base model get to read, text by text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from peftguard.errors import UnsupportedAdapter
from peftguard.mitigation.factored import Float32
from peftguard.padbench.training.batches import padded

if TYPE_CHECKING:
    from peftguard.padbench.training.base import LoadedBase

_BATCH = 16

Inputs = dict[str, list[Float32]]
"""By module, its inputs for every row of tokens: (tokens, in), or (in,) after pooling."""


def inputs_of(base: LoadedBase, modules: Iterable[str], rows: Sequence[list[int]]) -> Inputs:
    """Run the base alone, in float32, and keep what some of its modules are given.

    Args:
        base: not changed.
        modules: dotted paths of linear layers.
        rows: token ids, special tokens among them.

    Raises:
        UnsupportedAdapter: the base has no such module.
    """
    whole: Any = base.prepared("cpu", "fp32")
    model = whole.base_model if base.head is None else whole  # no logits of a vocabulary
    found: Inputs = {module: [] for module in modules}
    with _caught(whole, found) as caught, torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            ids, mask = padded(batch)
            model(input_ids=ids, attention_mask=mask)
            for module, values in caught.items():
                found[module] += [
                    own[: len(row)] if own.ndim > 1 else own
                    for own, row in zip(values.numpy(), batch, strict=True)
                ]
    return found


@contextmanager
def _caught(model: nn.Module, modules: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Inputs of the last pass, by module."""
    caught: dict[str, torch.Tensor] = {}

    def hook(module: str) -> Any:
        def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            caught[module] = inputs[0].detach()

        return keep

    hooks = [_linear(model, name).register_forward_pre_hook(hook(name)) for name in modules]
    try:
        yield caught
    finally:
        for one in hooks:
            one.remove()


def _linear(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise UnsupportedAdapter("the base model has no such module", key=name) from None
