"""PEFT's reduction of intruder dimensions (Shuttleworth et al. 2024), by PEFT's own function.

An intruder is a leading singular direction of the adapted weight that none of the base's is near.
PEFT is given the factors alone: neither the adapter's config nor its files.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftguard.adversary.arithmetic import changed, with_factors
from peftguard.errors import MissingExtra
from peftguard.mitigation.factored import Factored, Layer
from peftguard.mitigation.method import Given, Method, Need

if TYPE_CHECKING:
    from torch import nn

_OLD, _NEW = "default", "reduced"


@dataclass(frozen=True)
class IntruderReduction(Method):
    """Made against forgetting, not against backdoors.

    Args:
        top: leading directions looked at.
        threshold: least cosine with a direction of the base that makes one no intruder.
        kept: share of an intruder that stays, PEFT's `mitigation_lambda`.
    """

    name = "intruders"
    about = "peft's reduction of intruder dimensions"
    needs = frozenset({Need.BASE})
    top: int = 10
    threshold: float = 0.5
    kept: float = 0.75

    def apply(self, adapter: Factored, given: Given) -> Factored:
        """As of `Method.apply`. Raises MissingExtra if the installed PEFT has no such function."""
        try:
            from peft.tuners.lora.intruders import reduce_intruder_dimension
        except ImportError:
            raise MissingExtra("reducing intruder dimensions", "train") from None
        model = _in_peft(adapter, given.the_base().model)
        reduce_intruder_dimension(
            model,
            old_adapter_name=_OLD,
            new_adapter_name=_NEW,
            top_k=self.top,
            threshold_epsilon=self.threshold,
            mitigation_lambda=self.kept,
            logging_sink=None,
        )

        def reduced(layer: Layer) -> Layer:
            if not layer.rank:
                return layer
            own: Any = model.base_model.model.get_submodule(layer.module)
            A, B = (part[_NEW].weight.detach().numpy() for part in (own.lora_A, own.lora_B))
            return with_factors(layer, B / layer.scale, A)

        return changed(adapter, reduced)


def _in_peft(adapter: Factored, base: nn.Module) -> Any:
    """PEFT's model of the base with the adapter's factors, as LoRA of scale 1."""
    import torch
    from peft import LoraConfig, get_peft_model

    layers = {module: layer for module, layer in adapter.layers.items() if layer.rank}
    ranks = {module: layer.rank for module, layer in layers.items()}
    config = LoraConfig(target_modules=list(ranks), rank_pattern=ranks, alpha_pattern=ranks)
    model = get_peft_model(copy.deepcopy(base), config, adapter_name=_OLD)
    for module, layer in layers.items():
        own: Any = model.base_model.model.get_submodule(module)
        own.lora_A[_OLD].weight.data = torch.from_numpy(layer.A.copy())
        own.lora_B[_OLD].weight.data = torch.from_numpy(layer.scale * layer.B)
    return model
