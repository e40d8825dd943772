"""What an adapter changes besides its low-rank updates: reported always, judged by no detector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from peftguard.adapters.adapter import Adapter
from peftguard.errors import PeftGuardError
from peftguard.findings import Finding, found
from peftguard.limits import MIB
from peftguard.verdict.checks.files import listed

_CODES = {
    "embedding": "payload.embedding",
    "classifier-head": "payload.classifier-head",
    "module-to-save": "payload.module-to-save",
    "token-delta": "payload.token-delta",
    "soft-prompt": "payload.soft-prompt",
    "bias": "payload.bias",
    "norm": "payload.norm",
    "unexplained": "payload.unexplained",
}
# A head reads the model's last state and a bias adds a constant: neither can tell a trigger's input
# from another by itself. All the rest can, so an adapter with it is not known from its updates.
_TELLING = {
    "embedding": "it replaces embeddings",
    "module-to-save": "it replaces whole modules",
    "token-delta": "it edits single tokens",
    "soft-prompt": "it prepends a learned prompt",
    "norm": "it changes normalisation weights",
    "unexplained": "it has tensors that no method explains",
    "invocation-tokens": "it switches on after a token sequence",
    "magnitude": "its DoRA magnitude was not judged",
}
_PARTS = {"lora_B.bias": "payload.bias", "lora_magnitude_vector": "payload.magnitude"}
_LARGEST_READ = 64 * MIB
"""Larger payload tensors, such as whole embeddings, are not looked through for NaN."""


def check_payload(adapter: Adapter) -> Iterator[Finding]:
    """One finding a kind of payload, with sizes and the first names."""
    for kind, tensors in _by_kind(adapter).items():
        yield found(_CODES[kind], _describe(adapter, kind, tensors), tensor=tensors[0])
    for part, code in _PARTS.items():
        having = [name for name, module in adapter.modules.items() if part in module.info]
        if having:
            yield found(code, f"{len(having)} modules: {listed(having, 3)}", module=having[0])
    if tokens := adapter.config.get("alora_invocation_tokens"):
        shown = listed([repr(tokens)], 1)
        message = f"an activated LoRA: it acts from the tokens {shown} on"
        yield found("payload.invocation-tokens", message, tensor="alora_invocation_tokens")
    yield from _check_finite(adapter)


def incomplete_because(adapter: Adapter) -> list[str]:
    """Clauses for what this adapter can do that its updates do not show."""
    kinds = _by_kind(adapter)
    if adapter.config.get("alora_invocation_tokens"):
        kinds["invocation-tokens"] = []
    if any("lora_magnitude_vector" in module.info for module in adapter.modules.values()):
        kinds["magnitude"] = []
    return [_TELLING[kind] for kind in kinds if kind in _TELLING]


def _check_finite(adapter: Adapter) -> Iterator[Finding]:
    """NaN or infinity in what no profile is made of; one tensor in memory at a time."""
    broken = []
    for name in _floats_beside(adapter):
        try:
            array = adapter.container.read(name)
        except PeftGuardError as error:
            yield found(error.code, str(error), tensor=name)
            break
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            broken.append(name)
    if broken:
        message = f"NaN or infinite values in {listed(broken, 3)}"
        yield found("integrity.non-finite", message, tensor=broken[0])


def _floats_beside(adapter: Adapter) -> list[str]:
    """Payload, biases and magnitudes that are small enough to be read."""
    parts = [
        module.info[part].name
        for module in adapter.modules.values()
        for part in _PARTS
        if part in module.info
    ]
    names = [entry.tensor for entry in adapter.payload] + parts
    tensors = adapter.container.tensors
    return [name for name in names if tensors[name].n_bytes <= _LARGEST_READ]


def _by_kind(adapter: Adapter) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for entry in adapter.payload:
        kinds.setdefault(entry.kind, []).append(entry.tensor)
    if adapter.method is not None:
        strange = [
            module.info[part].name
            for module in adapter.modules.values()
            for part in module.info
            if part not in adapter.method.parts
        ]
        if strange:
            kinds.setdefault("unexplained", []).extend(strange)
    return kinds


def _describe(adapter: Adapter, kind: str, tensors: Sequence[str]) -> str:
    infos = [adapter.container.tensors[name] for name in tensors]
    size = sum(info.n_parameters for info in infos)
    noun = "tensor" if len(infos) == 1 else "tensors"
    text = f"{len(infos)} {noun}, {size:,} parameters: {listed(tensors, 3)}"
    if kind == "token-delta" and (indices := adapter.config.get("trainable_token_indices")):
        text += f"; token ids {listed([repr(indices)], 1)}"
    return text
