"""llama.cpp: `blk.N.attn_q.weight.lora_a` beside whole norms, settings in the GGUF key-values.

As written by `convert_lora_to_gguf.py` and read by `llama-adapter.cpp`: shapes are PEFT's, but
`token_embd` has `lora_a` as (vocabulary, r). The scale is alpha / r, or 1 if alpha is 0 or absent.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.keys.base import Part, Payload
from peftguard.adapters.keys.suffixes import leftover
from peftguard.limits import Limits

_NAME = re.compile(r"(?P<module>.+?)(?:\.weight)?\.lora_(?P<side>[ab])", re.DOTALL)
_ALPHA = "adapter.lora.alpha"
_TOKENS = "adapter.alora.invocation_tokens"
_HUB = "https://huggingface.co/"


class GgufGrammar:
    """Names of llama.cpp's adapters."""

    name = "gguf"

    def recognises(
        self, tensors: Mapping[str, TensorInfo], config: Mapping[str, object] | None
    ) -> bool:
        """True if any tensor is the factor of a tensor, not of a module as in MLX."""
        return any(name.endswith((".weight.lora_a", ".weight.lora_b")) for name in tensors)

    def parse(
        self, tensors: Mapping[str, TensorInfo], config: Mapping[str, object] | None
    ) -> list[Part | Payload]:
        """Stacks of experts become `experts_lora_A` (n, r, in) and `experts_lora_B` (n, out, r)."""
        return [_parse(info) for info in tensors.values()]


def _parse(info: TensorInfo) -> Part | Payload:
    match = _NAME.fullmatch(info.name)
    if match is None:
        return leftover(info)
    module, side = match["module"], match["side"].upper()
    if module.endswith("token_embd"):
        return Part(info.name, module, f"lora_embedding_{side}", transposed=side == "A")
    prefix = "experts_" if len(info.shape) == 3 else ""
    return Part(info.name, module, f"{prefix}lora_{side}")


def config_from_metadata(metadata: Mapping[str, str], limits: Limits) -> dict[str, object] | None:
    """PEFT config fields from the key-values of an adapter; None if they describe something else.

    A value that is not what llama.cpp would accept is passed on as its text, to be reported.
    """
    if metadata.get("general.type") != "adapter" and "adapter.type" not in metadata:
        return None
    config: dict[str, object] = {"peft_type": metadata.get("adapter.type", "lora").upper()}
    if alpha := _number(metadata.get(_ALPHA, "0")):
        config["lora_alpha"] = alpha
    if _TOKENS in metadata:
        config["alora_invocation_tokens"] = _tokens(metadata[_TOKENS])
    if base := _base_model(metadata):
        config["base_model_name_or_path"] = base[: limits.max_name_length]
    if architecture := metadata.get("general.architecture"):
        config["architecture"] = architecture[: limits.max_name_length]
    return config


def _number(text: str) -> float | str:
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text


def _tokens(text: str) -> list[int] | str:
    """Token ids from `[1, 2, 3]`; flat by its first character, so no nesting to bound."""
    if not re.fullmatch(r"\[[\d,\s]*\]", text, re.ASCII) or len(text) > 1 << 20:
        return text
    try:
        return [int(token) for token in json.loads(text)]
    except ValueError:
        return text


def _base_model(metadata: Mapping[str, str]) -> str | None:
    url = metadata.get("general.base_model.0.repo_url", "")
    if url.startswith(_HUB):
        return url.removeprefix(_HUB)
    return metadata.get("general.base_model.0.name")


GGUF = GgufGrammar()
