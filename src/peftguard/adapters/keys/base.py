"""What a grammar of tensor names says about one name.

Every dialect (PEFT, diffusers, kohya, MLX, GGUF) is translated into PEFT's own part names, so that
methods know one vocabulary only: `lora_A`, `lora_B`, `lora_E`, `lora_magnitude_vector`,
`lora_B.bias`, `lora_embedding_A`, `lora_embedding_B`, `hada_w1_a` .. `hada_t2`, `lokr_w1` ..
`lokr_t2`, `vera_lambda_b`, `vera_lambda_d`, `alpha` (a scalar tensor), `lora_mid`, ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from peftguard.adapters.containers.base import TensorInfo

PayloadKind = Literal[
    "embedding",
    "classifier-head",
    "module-to-save",
    "token-delta",
    "soft-prompt",
    "bias",
    "norm",
    "unexplained",
]


@dataclass(frozen=True, slots=True)
class Part:
    """`tensor` is the `part` of an adapted `module`; `transposed` if stored the other way round."""

    tensor: str
    module: str
    part: str
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Payload:
    """`tensor` changes the model in a way that is no low-rank update."""

    tensor: str
    module: str
    kind: PayloadKind


class Grammar(Protocol):
    """One dialect of tensor names."""

    name: str
    """`peft`, `diffusers`, `kohya`, `mlx` or `gguf`: the adapter's `format` in results."""

    def recognises(
        self, tensors: Mapping[str, TensorInfo], config: Mapping[str, object] | None
    ) -> bool:
        """True if this file is written in this dialect."""
        ...

    def parse(
        self, tensors: Mapping[str, TensorInfo], config: Mapping[str, object] | None
    ) -> list[Part | Payload]:
        """One entry a tensor, in file order; every tensor comes out exactly once."""
        ...
