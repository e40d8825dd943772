"""Every method of PEFT 0.21: how its tensors are named, and why it has no exact update here.

The order decides between methods that share a prefix (`lora_E` makes it AdaLoRA).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple


class PeftMethod(NamedTuple):
    """`prefixes` start the names of its tensors; `why` is empty if the update is exact."""

    prefixes: tuple[str, ...]
    why: str = ""


_PROMPT = "learns inputs, not weights"
_ON_BASE = "acts on the base weight, which is not in the file"
_SEEDED = "places its values by seeds and transforms that are not read here"
_BANKED = "mixes entries of a shared bank that is not read here"
_ROUTED = "weighs its parts anew for every input"

PEFT_TYPES: dict[str, PeftMethod] = {
    "ADALORA": PeftMethod(("lora_E", "ranknum")),
    "LORA": PeftMethod(("lora_",)),
    "LOHA": PeftMethod(("hada_",)),
    "LOKR": PeftMethod(("lokr_",)),
    "VERA": PeftMethod(("vera_",)),
    "PVERA": PeftMethod(("pvera_",), "draws its scaling at random around a learnt mean"),
    "ADAMSS": PeftMethod(("adamss_",), "works in subspaces of the base weight"),
    "ADAPTION_PROMPT": PeftMethod(("adaption_",), _PROMPT),
    "BEFT": PeftMethod(("beft_",), "changes biases only"),
    "BOFT": PeftMethod(("boft_",), _ON_BASE),
    "C3A": PeftMethod(("c3a_",), "is a circulant convolution of full rank"),
    "CARTRIDGE": PeftMethod(("cartridge_",), _PROMPT),
    "CPT": PeftMethod(("cpt_",), _PROMPT),
    "DEFT": PeftMethod(("deft_",), _ON_BASE),
    "DELORA": PeftMethod(("delora_",), "is scaled by the base weight's norm"),
    "FOURIERFT": PeftMethod(("fourierft_",), _SEEDED),
    "FROD": PeftMethod(("frod_",), _ON_BASE),
    "GLORA": PeftMethod(("glora_",), _ON_BASE),
    "GRALORA": PeftMethod(("gralora_",), "is low-rank only block by block"),
    "HIRA": PeftMethod(("hira_",), "multiplies the base weight"),
    "HRA": PeftMethod(("hra_",), _ON_BASE),
    "IA3": PeftMethod(("ia3_",), _ON_BASE),
    "LILY": PeftMethod(("lily_",), _ROUTED),
    "LN_TUNING": PeftMethod(("ln_tuning_",), "replaces normalisation weights"),
    "MISS": PeftMethod(("miss_", "bone_"), "needs the input width, in its `bat` mode the base too"),
    "MULTITASK_PROMPT_TUNING": PeftMethod(("multitask_prompt_tuning_",), _PROMPT),
    "OFT": PeftMethod(("oft_",), _ON_BASE),
    "OSF": PeftMethod(("osf_", "_osf_"), _ON_BASE),
    "PEANUT": PeftMethod(("peanut_",), _ON_BASE),
    "POLY": PeftMethod(("poly_",), _ROUTED),
    "PREFIX_TUNING": PeftMethod(("prefix_tuning_",), _PROMPT),
    "PROMPT_TUNING": PeftMethod(("prompt_tuning_",), _PROMPT),
    "PSOFT": PeftMethod(("psoft_",), _ON_BASE),
    "P_TUNING": PeftMethod(("p_tuning_",), _PROMPT),
    "RANDLORA": PeftMethod(("randlora_",), "sums random bases up to full rank"),
    "ROAD": PeftMethod(("road_",), _ON_BASE),
    "SHADOW": PeftMethod(("shadow_",), "runs a second network beside the base"),
    "SHIRA": PeftMethod(("shira_",), "is sparse, at positions that need not be in the file"),
    "SUPERTUNING": PeftMethod(("supertuning_",), _SEEDED),
    "TINYLORA": PeftMethod(("tinylora_",), _ON_BASE),
    "TRAINABLE_TOKENS": PeftMethod(("trainable_tokens_",), "replaces rows of the embeddings"),
    "UNILORA": PeftMethod(("unilora_",), _BANKED),
    "VBLORA": PeftMethod(("vblora_",), _BANKED),
    "WAVEFT": PeftMethod(("waveft_",), _SEEDED),
    "XLORA": PeftMethod(("xlora_", "internal_xlora_"), _ROUTED),
}

MIXABLE = frozenset({"LORA", "LOHA", "LOKR"})
"""What LyCORIS chooses between module by module."""

ALL_PREFIXES = tuple(sorted(prefix for method in PEFT_TYPES.values() for prefix in method.prefixes))
"""What the name of any method's tensor starts with."""


def method_of_parts(parts: Collection[str]) -> str:
    """Name of the method whose tensors these are, `UNKNOWN` if of none."""
    # LoHa and LoKr can have a learnt magnitude as well
    parts = set(parts) - {"lora_magnitude_vector"} or parts
    for peft_type, method in PEFT_TYPES.items():
        if any(part.startswith(method.prefixes) for part in parts):
            return peft_type
    return "LORA" if any(part.startswith("experts_lora_") for part in parts) else "UNKNOWN"


def method_of_modules(parts: Iterable[tuple[str, str]]) -> str:
    """The same for (module, part) of a whole file; `LOKR+LORA` where LyCORIS mixed methods."""
    by_module: dict[str, set[str]] = {}
    for module, part in parts:
        by_module.setdefault(module, set()).add(part)
    methods = {method_of_parts(names) for names in by_module.values()}
    if len(methods) > 1 and methods <= MIXABLE:
        return "+".join(sorted(methods))
    return method_of_parts(set().union(*by_module.values()))
