"""Tensor suffixes that kohya, LyCORIS, diffusers and MLX files share, in PEFT's part names."""

from __future__ import annotations

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.keys.base import Payload, PayloadKind

LYCORIS = (
    *(f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
    *(f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
)
"""LyCORIS and PEFT agree on these names and their shapes."""

PARTS = {
    "lora_A.weight": "lora_A",
    "lora_B.weight": "lora_B",
    "lora_A.default.weight": "lora_A",
    "lora_B.default.weight": "lora_B",
    "lora_down.weight": "lora_A",
    "lora_up.weight": "lora_B",
    "lora_mid.weight": "lora_mid",
    "lora_B.bias": "lora_B.bias",
    "lora_up.bias": "lora_B.bias",
    "alpha": "alpha",
    "dora_scale": "lora_magnitude_vector",
    "lora_magnitude_vector": "lora_magnitude_vector",
    "lora_magnitude_vector.weight": "lora_magnitude_vector",
    **{name: name for name in LYCORIS},
}

PAYLOADS: dict[str, PayloadKind] = {
    "diff": "module-to-save",
    "diff_b": "bias",
    "w_norm": "norm",
    "b_norm": "norm",
}
"""Full differences that LyCORIS adds to a weight, a bias or a normalisation layer."""

EMBEDDINGS = frozenset(
    {"embed_tokens", "tok_embeddings", "word_embeddings", "wte", "embeddings", "embedding"}
)
"""Last component of the path of a token embedding, in the transformers and MLX model zoos."""


def split_suffix(name: str) -> tuple[str, str]:
    """(module, suffix), the longest that `PARTS` or `PAYLOADS` has; ("", name) without one."""
    for dots in (3, 2, 1):
        pieces = name.rsplit(".", dots)
        suffix = ".".join(pieces[1:])
        if pieces[0] and (suffix in PARTS or suffix in PAYLOADS):
            return pieces[0], suffix
    return "", name


def leftover(info: TensorInfo, otherwise: PayloadKind = "unexplained") -> Payload:
    """A tensor that is no part of an update. Only plain vectors pass as a bias or a norm."""
    module, dot, leaf = info.name.rpartition(".")
    module = module if dot else info.name
    last = module.rpartition(".")[2]
    is_vector = len(info.shape) <= 1
    kind = otherwise
    if leaf in ("weight", "bias") and is_vector and ("norm" in last or last.startswith("ln_")):
        kind = "norm"
    elif leaf == "bias" and is_vector:
        kind = "bias"
    elif leaf == "weight" and last in EMBEDDINGS:
        kind = "embedding"
    return Payload(info.name, module, kind)
