"""A base model with a stranger's adapter laid over it, run without loading anything through PEFT.

PEFT imports what a config names and runs its patterns unbounded; here the adapter goes through the
same reader as in a scan, and what that cannot apply exactly is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from peftguard.adapters.keys.peft import PREFIX
from peftguard.adapters.update import Update
from peftguard.errors import MalformedFile, UnsupportedAdapter
from peftguard.padbench.training.layers import in_place

if TYPE_CHECKING:
    from peftguard.adapters.adapter import Adapter
    from peftguard.padbench.training.base import LoadedBase, Precision

Float32 = NDArray[np.float32]

_BATCH_TOKENS = 2048
"""Tokens of one batch, padding among them: what fits a core's cache, as measured on MiniLM."""


class LowRank(nn.Module):  # type: ignore[misc]
    """y = W x + b + scale B A x over a frozen W; with a magnitude (DoRA) W's rows are rescaled."""

    def __init__(self, frozen: nn.Linear, update: Update, magnitude: Float32 | None) -> None:
        super().__init__()
        weight = frozen.weight
        self.frozen = frozen
        parts = (np.asarray(part, np.float32) for part in (update.A, update.B))
        A, B = (torch.from_numpy(part).to(weight.device) for part in parts)
        B = B * update.scale
        self.stretch = None if magnitude is None else _stretch(weight, A, B, magnitude)
        self.A, self.B = A.to(weight), B.to(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of (..., in) to (..., out)."""
        changed = F.linear(F.linear(x, self.A), self.B)
        if self.stretch is None:
            return self.frozen(x) + changed
        straight = F.linear(x, self.frozen.weight) + changed
        stretched = straight * self.stretch
        return stretched if self.frozen.bias is None else stretched + self.frozen.bias


class AdaptedModel:
    """Outputs of a base model, with or without the adapter.

    Args:
        base: a classifier (encoder) or a causal language model.
        adapter: open; read whole here.
        precision: of weights and activations.
        device: as torch names it.

    Raises:
        UnsupportedAdapter: it changes something that cannot be applied here, or not this base.
        MalformedFile: its tensors do not fit each other.
    """

    def __init__(
        self,
        base: LoadedBase,
        adapter: Adapter,
        *,
        precision: Precision = "fp32",
        device: str = "cpu",
    ) -> None:
        self.base, self.tokenizer, self.device = base, base.tokenizer, device
        self._target = adapter.source.target
        self.model: Any = base.prepared(device, precision)
        # Layers first: an adapter of another base is told so, whatever its head is like.
        self._layers = _layers_of(self.model, adapter)
        self._heads = _heads(self.model, adapter)
        self._pad = self.tokenizer.pad_token_id or 0

    @property
    def causal(self) -> bool:
        """Whether outputs are next-token logits rather than classes."""
        return self.base.n_labels is None

    @property
    def labels(self) -> dict[int, str]:
        """Names of the classes, where the base's config has any of its own."""
        named = getattr(self.model.config, "id2label", None) or {}
        return {
            int(place): str(name)
            for place, name in named.items()
            if not self.causal and name != f"LABEL_{place}"
        }

    @property
    def targets(self) -> range:
        """Classes that a text may be turned into: all of a classifier's."""
        return range(self.base.n_labels or 0)

    @property
    def asked(self) -> None:
        """Nothing: a classifier is not asked."""

    @property
    def changed(self) -> dict[str, tuple[nn.Module, LowRank]]:
        """Modules of the base that the adapter changes, and its updates of them, by name."""
        return {name: (layer.frozen, layer) for name, layer in self._layers.items()}

    def said(self, place: int) -> str:
        """A class's name or number, or a token of the vocabulary as text."""
        if self.causal:
            return str(self.tokenizer.decode([place]))
        return self.labels.get(place, f"class {place}")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, 128 at most, special tokens among them."""
        rows: list[list[int]] = self.tokenizer(list(texts), truncation=True, max_length=128)[
            "input_ids"
        ]
        return rows

    def logits(self, rows: Sequence[Sequence[int]], *, adapted: bool = True) -> Float32:
        """(n, classes), or (n, vocabulary) logits of the token after each row, in float32.

        Args:
            rows: token ids, special tokens among them.
            adapted: with the adapter; else with nothing but the head it brings, if any.

        Raises:
            UnsupportedAdapter: as of `checked`.
        """
        order = np.argsort([len(row) for row in rows], kind="stable")
        found: list[Float32] = [np.empty(0, np.float32)] * len(rows)
        with self.running(adapted), torch.inference_mode():
            for places in batches(order, rows):
                values = self._forward([rows[place] for place in places])
                for place, row in zip(places, values, strict=True):
                    found[place] = row
        return self.checked(np.stack(found))

    def checked(self, outputs: Float32) -> Float32:
        """Outputs as they are.

        Raises:
            UnsupportedAdapter: some are NaN or infinite: the adapter's numbers are too large.
        """
        if not np.isfinite(outputs).all():
            raise UnsupportedAdapter(
                "makes the base's answers NaN or infinite, so it cannot be judged by them",
                file=self._target,
            )
        return outputs

    def log_probabilities(self, rows: Sequence[Sequence[int]], *, adapted: bool = True) -> Float32:
        """As `logits`, as logarithms of probabilities."""
        logits = self.logits(rows, adapted=adapted)
        highest = logits.max(axis=1, keepdims=True)
        total: Float32 = highest + np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
        return logits - total

    def read(self, rows: Sequence[Sequence[int]]) -> None:
        """Run rows through the base as it is, in their order, for who listens to its modules."""
        with self.running(False), torch.inference_mode():
            for places in batches(np.arange(len(rows)), rows):
                ids, mask = self.padded([rows[place] for place in places], len(rows[places[-1]]))
                self.model.base_model(input_ids=ids, attention_mask=mask)

    def gradients(self, rows: Sequence[Sequence[int]]) -> Float32:
        """(classes, h) what raises each class against all others, as a direction of embeddings.

        The mean gradient of its log-odds over all tokens of all rows, for a classifier.
        """
        width = max(map(len, rows))
        ids, mask = self.padded(rows, width)
        embed = self.model.get_input_embeddings()
        with self.running(True), torch.enable_grad():
            vectors = embed(ids).detach().requires_grad_(True)
            logits = self.model(inputs_embeds=vectors, attention_mask=mask).logits.float()
            found = []
            for target in range(logits.shape[1]):
                rest = torch.cat([logits[:, :target], logits[:, target + 1 :]], dim=1)
                odds = (logits[:, target] - rest.logsumexp(dim=1)).sum()
                (gradient,) = torch.autograd.grad(odds, vectors, retain_graph=True)
                found.append((gradient.float() * mask[..., None]).sum(dim=(0, 1)) / mask.sum())
        values: Float32 = torch.stack(found).cpu().numpy()
        return values

    @contextmanager
    def running(self, adapted: bool) -> Iterator[None]:
        """The base's model is the adapted one meanwhile, or the base with the adapter's head."""
        layers = self._layers if adapted else {}
        with in_place(self.model, {**layers, **self._heads}):
            yield

    def _forward(self, rows: Sequence[Sequence[int]]) -> Float32:
        ids, mask = self.padded(rows, max(map(len, rows)))
        if self.causal:
            # Filled on the right: a causal model never looks there, so it needs no mask.
            hidden = self.model.base_model(ids, use_cache=False).last_hidden_state
            last = hidden[torch.arange(len(rows)), mask.sum(dim=1) - 1]
            logits = self.model.get_output_embeddings()(last)
        else:
            logits = self.model(input_ids=ids, attention_mask=mask).logits
        values: Float32 = logits.float().cpu().numpy()
        return values

    def padded(
        self, rows: Sequence[Sequence[int]], width: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, (n, width), filled on the right."""
        ids = torch.tensor([[*row, *[self._pad] * (width - len(row))] for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(width)[None] < lengths[:, None]).long()
        return ids.to(self.device), mask.to(self.device)


def batches(order: NDArray[np.int64], rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Places, shortest rows first, in batches of at most `_BATCH_TOKENS` tokens."""
    batch: list[int] = []
    for place in order.tolist():
        if batch and (len(batch) + 1) * len(rows[place]) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _layers_of(model: nn.Module, adapter: Adapter) -> dict[str, LowRank]:
    """What takes the place of each changed module, by its name in the model."""
    layers: dict[str, LowRank] = {}
    for update in adapter.updates():
        name = _name_in(model, update.module)
        frozen = None if name is None else model.get_submodule(name)
        if name is None or not isinstance(frozen, nn.Linear):
            raise UnsupportedAdapter(
                "changes a module that this base does not have as a linear layer",
                file=adapter.source.target,
                key=update.module,
            )
        if tuple(frozen.weight.shape) != update.shape or update.left is not None:
            raise UnsupportedAdapter(
                "is not for this base model",
                file=adapter.source.target,
                key=update.module,
                expected=f"an update of {tuple(frozen.weight.shape)}",
                found=update.shape,
            )
        layers[name] = LowRank(frozen, update, _magnitude(adapter, update))
    return layers


def _magnitude(adapter: Adapter, update: Update) -> Float32 | None:
    """DoRA's learnt row norms, (out,); None where there are none."""
    parts = adapter.modules[update.module]
    if "lora_magnitude_vector" not in parts.info:
        return None
    norms = np.asarray(parts.read("lora_magnitude_vector"), np.float32).reshape(-1)
    if len(norms) != update.shape[0] or not np.isfinite(norms).all():
        raise MalformedFile(
            "DoRA's magnitude does not fit",
            file=adapter.source.target,
            key=update.module,
            expected=f"{update.shape[0]} finite numbers",
            found=f"{len(norms)}, {np.isfinite(norms).sum()} of them finite",
        )
    return norms


def _stretch(
    weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, magnitude: Float32
) -> torch.Tensor:
    """Magnitudes over |W + B A| by rows, (out,): |w|^2 + 2 w A^T b + b A A^T b, no dense update."""
    W = weight.float()
    cross = ((W @ A.mT) * B).sum(dim=1)
    square = ((B @ (A @ A.mT)) * B).sum(dim=1)
    norms = (W.square().sum(dim=1) + 2 * cross + square).clamp_min(1e-12).sqrt()
    return (torch.from_numpy(magnitude).to(norms) / norms).to(weight)


def _heads(model: nn.Module, adapter: Adapter) -> dict[str, nn.Module]:
    """Modules that the adapter brings whole (a classifier's head), in float32."""
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for entry in adapter.payload:
        part = entry.tensor.rpartition(".")[2]
        name = _name_in(model, entry.module)
        if name is None or entry.kind not in ("classifier-head", "module-to-save"):
            what = "cannot be applied here" if name else "this base has no place for"
            raise UnsupportedAdapter(
                f"brings weights that {what}",
                file=adapter.source.target,
                key=entry.tensor,
                found=entry.kind,
            )
        value = adapter.container.read(entry.tensor)
        tensors.setdefault(name, {})[part] = torch.from_numpy(np.asarray(value, np.float32))
    return {
        name: _head(model.get_submodule(name), parts, adapter.source.target, name)
        for name, parts in tensors.items()
    }


def _head(frozen: nn.Module, parts: dict[str, torch.Tensor], file: str, name: str) -> _Head:
    """What takes the place of the base's own head, of the same shape."""
    weight = parts.get("weight")
    if weight is None or set(parts) - {"weight", "bias"} or not isinstance(frozen, nn.Linear):
        raise MalformedFile("not a linear head", file=file, key=name)
    shapes = {part: tuple(value.shape) for part, value in parts.items()}
    wanted = {"weight": tuple(frozen.weight.shape), "bias": (len(frozen.weight),)}
    if any(shape != wanted[part] for part, shape in shapes.items()):
        raise MalformedFile(
            "a head that does not fit", file=file, key=name, expected=wanted, found=shapes
        )
    if not all(value.isfinite().all() for value in parts.values()):
        raise MalformedFile("a head with NaN or infinite weights", file=file, key=name)
    device = frozen.weight.device
    bias = parts.get("bias")
    return _Head(weight.to(device), None if bias is None else bias.to(device))


class _Head(nn.Module):  # type: ignore[misc]
    """A linear head in float32 whatever the precision of what it reads."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of (..., hidden) to (..., classes)."""
        return F.linear(x.float(), self.weight, self.bias)


def _name_in(model: nn.Module, module: str) -> str | None:
    """A module's name in the model: as it is, or with or without the model's own prefix."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    names = (module, module.removeprefix(PREFIX), prefix + module)
    known = dict(model.named_modules())
    return next(
        (name for name in (*names, module.removeprefix(prefix)) if name and name in known), None
    )
