"""MLX-LM: `lora_a` and `lora_b` stored the other way round, one direct scale in the config.

As in `mlx_lm/tuner/lora.py`: a linear layer computes `y + scale * (x @ lora_a) @ lora_b` with
`lora_a` (in, r) and `lora_b` (r, out); an embedding adds `scale * lora_a @ lora_b` to its
(vocabulary, hidden) table; a switch layer has `lora_a` (experts, r, in), once (experts * r, in),
and `lora_b` (experts, out, r).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.keys.base import Part, Payload
from peftguard.adapters.keys.suffixes import EMBEDDINGS, leftover

_FACTORS = {"lora_a": "lora_A", "lora_b": "lora_B"}
_MARKS = ("fine_tune_type", "lora_parameters", "lora_layers")


class MlxGrammar:
    """Names of MLX-LM, also of whole models tuned with `fine_tune_type: full`."""

    name = "mlx"

    def recognises(
        self, tensors: Mapping[str, TensorInfo], config: Mapping[str, object] | None
    ) -> bool:
        """True if any tensor is a lower-case factor of a module, or the config is MLX-LM's."""
        if is_mlx_config(config):
            return True
        return any(
            name.endswith((".lora_a", ".lora_b"))
            and not name.endswith((".weight.lora_a", ".weight.lora_b"))
            for name in tensors
        )

    def parse(
        self, tensors: Mapping[str, TensorInfo], config: Mapping[str, object] | None
    ) -> list[Part | Payload]:
        """Switch layers become `experts_lora_A` (n, r, in) or (n * r, in), `experts_lora_B`."""
        stacks = {
            info.name.removesuffix(".lora_b")
            for info in tensors.values()
            if info.name.endswith(".lora_b") and len(info.shape) == 3
        }
        full = config is not None and config.get("fine_tune_type") == "full"
        return [_parse(info, stacks, full=full) for info in tensors.values()]


def _parse(info: TensorInfo, stacks: set[str], *, full: bool) -> Part | Payload:
    module, dot, leaf = info.name.rpartition(".")
    if dot and module and leaf in _FACTORS:
        part = _FACTORS[leaf]
        if module in stacks:
            return Part(info.name, module, f"experts_{part}")
        if module.rpartition(".")[2] in EMBEDDINGS:
            part = part.replace("lora_", "lora_embedding_")
        return Part(info.name, module, part, transposed=len(info.shape) == 2)
    if dot and module and leaf == "m":
        return Part(info.name, module, "lora_magnitude_vector")
    return leftover(info, "module-to-save" if full else "unexplained")


def is_mlx_config(config: Mapping[str, object] | None) -> bool:
    """True for an `adapter_config.json` that MLX-LM wrote: it has settings, but no `peft_type`."""
    return config is not None and "peft_type" not in config and any(m in config for m in _MARKS)


def states_scale(config: Mapping[str, object]) -> bool:
    """False if the update's scale, which MLX-LM has no default for, is missing or no number."""
    given = config.get("lora_parameters")
    is_full = config.get("fine_tune_type") == "full"
    return is_full or (isinstance(given, dict) and _is_number(given.get("scale")))


def in_peft_terms(
    config: Mapping[str, object], stored_rank: int | None = None
) -> dict[str, object]:
    """An MLX config with PEFT's fields added: `r`, and a `lora_alpha` such that alpha / r = scale.

    Until 2024 (`lora_layers` in the config) the factor was `scale * alpha / rank`; later versions
    still write `alpha` at times, but ignore it. A rank that is missing is the stored one, since the
    scale does not depend on it; a scale that is missing is 1. A rank or scale that is no number is
    passed on as it is, to be reported.
    """
    given = config.get("lora_parameters")
    parameters: Mapping[str, object] = given if isinstance(given, dict) else {}
    rank, scale = parameters.get("rank"), parameters.get("scale")
    rank = stored_rank if rank is None else rank
    translated = dict(config)
    if config.get("fine_tune_type", "lora") != "full":
        translated |= {"peft_type": "LORA", "use_dora": config.get("fine_tune_type") == "dora"}
    if rank is not None:
        translated["r"] = rank
    if scale is not None:
        translated["lora_alpha"] = _alpha(rank, scale, parameters.get("alpha"), config)
    elif rank is not None:
        translated["lora_alpha"] = rank
    if isinstance(config.get("model"), str):
        translated["base_model_name_or_path"] = config["model"]
    if isinstance(parameters.get("keys"), list):
        translated["target_modules"] = parameters["keys"]
    return translated


def _alpha(rank: object, scale: object, alpha: object, config: Mapping[str, object]) -> object:
    if not _is_number(rank) or not _is_number(scale):
        return scale
    if "lora_layers" in config and "num_layers" not in config and _is_number(alpha):
        return float(scale) * float(alpha)
    return float(scale) * float(rank)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


MLX = MlxGrammar()
