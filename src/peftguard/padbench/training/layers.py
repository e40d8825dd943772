"""A model's own layers with K adapters at once: rows come adapter by adapter, (K * b, ..., in).

The frozen part is one product for all rows; each adapter's own part is one slice of a batched one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from peftguard.padbench.recipe import Method

if TYPE_CHECKING:
    from peftguard.padbench.training.layout import Parts


class FleetLinear(nn.Module):  # type: ignore[misc]
    """y = W x + b + scale_k B_k A_k x, over a frozen W.

    `parts` holds A (K, r, in) and B (K, out, r) in float32; `scale` is (K, 1, 1).
    """

    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen
        self.parts: dict[str, torch.Tensor] = {}
        self.scale = torch.ones(1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of (K * b, ..., in) to (K * b, ..., out), in the dtype of x."""
        rows = x.reshape(len(self.scale), -1, x.shape[-1])
        return self.adapted(rows).view(*x.shape[:-1], -1)

    def adapted(self, rows: torch.Tensor) -> torch.Tensor:
        """The same of (K, n, in)."""
        return self.low_rank(F.linear(rows, self.frozen.weight, self.frozen.bias), rows)

    def low_rank(self, onto: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Each adapter's own part, added to (K, n, out)."""
        A, B = self.A.to(rows.dtype), (self.scale * self.parts["B"]).to(rows.dtype)
        return torch.baddbmm(onto, torch.bmm(rows, A.mT), B.mT)

    @property
    def A(self) -> torch.Tensor:
        """The right factor, (K, r, in)."""
        return self.parts["A"]


class FleetDora(FleetLinear):
    """y = m_k / |W + scale_k B_k A_k| (W + scale_k B_k A_k) x + b, the norm taken as a constant."""

    def adapted(self, rows: torch.Tensor) -> torch.Tensor:
        """Of (K, n, in)."""
        straight = self.low_rank(F.linear(rows, self.frozen.weight), rows)
        stretch = (self.parts["magnitude"] / self.norms()).unsqueeze(1).to(rows.dtype)
        if self.frozen.bias is None:
            return straight * stretch
        return torch.addcmul(self.frozen.bias, straight, stretch)

    def norms(self) -> torch.Tensor:
        """Row norms of W + scale B A, (K, out): |w|^2 + 2 w A^T b + b A A^T b, no dense update."""
        with torch.no_grad():
            W, A, B = self.frozen.weight.float(), self.A, self.scale * self.parts["B"]
            cross = ((W @ A.mT) * B).sum(dim=2)
            square = ((B @ (A @ A.mT)) * B).sum(dim=2)
            return (W.square().sum(dim=1) + 2 * cross + square).clamp_min(0).sqrt()


class FleetAdaLora(FleetLinear):
    """y = W x + b + scale_k B_k diag(E_k) A_k x, with E (K, r, 1)."""

    @property
    def A(self) -> torch.Tensor:
        """E folded into A."""
        return self.parts["A"] * self.parts["E"]


class FleetHead(nn.Module):  # type: ignore[misc]
    """K heads of one form, each on its own rows, in float32: any module, by its parameters."""

    def __init__(self, form: nn.Module) -> None:
        super().__init__()
        # Kept in a list: the form's own parameters are no part of this module.
        self._form = [form]
        self.parts: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of (K * b, ..., hidden) to (K * b, ..., classes)."""
        count = len(next(iter(self.parts.values())))
        rows = x.float().view(count, -1, *x.shape[1:])
        return torch.vmap(self._one)(self.parts, rows).flatten(0, 1)

    def _one(self, parts: dict[str, torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = torch.func.functional_call(self._form[0], parts, (rows,))
        return logits


FleetLayer = FleetLinear | FleetHead

_KINDS = {Method.DORA: FleetDora, Method.ADALORA: FleetAdaLora}


def fleet_layers(
    method: Method, linears: Mapping[str, nn.Linear], head: tuple[str, nn.Module] | None
) -> dict[str, FleetLayer]:
    """What takes the place of each layer, by name."""
    kind = _KINDS.get(method, FleetLinear)
    layers: dict[str, FleetLayer] = {name: kind(linear) for name, linear in linears.items()}
    return layers | ({head[0]: FleetHead(head[1])} if head else {})


def give(layers: Mapping[str, FleetLayer], parts: Parts, scale: torch.Tensor) -> None:
    """Let the layers compute with these parameters; `scale` is (K,)."""
    for name, layer in layers.items():
        layer.parts = parts[name]
        if isinstance(layer, FleetLinear):
            layer.scale = scale.view(-1, 1, 1)


@contextmanager
def in_place(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Layers put in for those of the model that have their names, which return afterwards."""
    before = {name: model.get_submodule(name) for name in layers}
    try:
        _put(model, layers)
        with _first_token_only(model):
            yield
    finally:
        _put(model, before)


def _put(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    for name, layer in layers.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)


@contextmanager
def _first_token_only(model: nn.Module) -> Iterator[None]:
    """BERT's classifier reads the first token alone: compute no other after the last attention."""
    if getattr(getattr(model, "bert", None), "pooler", None) is None:
        yield
        return
    last = model.bert.encoder.layer[-1].attention.output
    hook = last.register_forward_pre_hook(lambda _, tokens: tuple(part[:, :1] for part in tokens))
    try:
        yield
    finally:
        hook.remove()
