"""AdaLoRA: y += scale * B diag(E) A x, with a scale of its own.

The scale is alpha / (ranknum + 1e-5), where `ranknum` is the rank before pruning (`init_r`): PEFT
does not save it, and on loading keeps it through the pruning that `rank_pattern` asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.methods.config_values import number, whole
from peftguard.adapters.methods.factors import misfit, need, pair
from peftguard.adapters.methods.scaling import DEFAULT, scalar
from peftguard.adapters.update import Update

DEFAULT_INIT_RANK = 12
"""What PEFT takes for an `init_r` that the config leaves out."""


class AdaLora:
    """A (r, in) and B (out, r) with the singular values E (r, 1) between them; r may be 0."""

    peft_type = "ADALORA"
    parts = frozenset({"lora_A", "lora_B", "lora_E", "ranknum"})

    def updates(self, module: ModuleParts, config: Mapping[str, Any]) -> Iterator[Update]:
        """One update; E is folded into A.

        Raises:
            MalformedFile: a factor is missing, or the shapes do not fit.
            InputError: a config value of the wrong type.
        """
        A, B = pair(need(module, "lora_A", 2), need(module, "lora_B", 2), module)
        E = need(module, "lora_E")
        rank = A.shape[0]
        if E.shape not in ((rank, 1), (rank,)):
            raise misfit(module, f"lora_E of shape ({rank}, 1)", str(E.shape))
        folded = (A * E.reshape(rank, 1)).astype(A.dtype, copy=False)
        yield Update(module.module, folded, B, _scale(module, config, rank))


def _scale(module: ModuleParts, config: Mapping[str, Any], rank: int) -> float:
    alpha = number(config.get("lora_alpha", DEFAULT), "lora_alpha")
    if "ranknum" in module.info:
        before = scalar(module, "ranknum")
    else:
        before = float(whole(config.get("init_r", DEFAULT_INIT_RANK), "init_r", least=0))
    if before < 0:
        raise misfit(module, "a ranknum of at least 0", str(before))
    return (alpha if alpha > 0 else rank) / (before + 1e-5)
