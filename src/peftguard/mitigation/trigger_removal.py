"""The trigger's directions taken out of every factor: without data, and without training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftguard.adapters.keys.peft import PREFIX
from peftguard.adversary.arithmetic import with_factors
from peftguard.mitigation.directions import blind_to, without
from peftguard.mitigation.factored import Factored, Layer
from peftguard.mitigation.method import Given, Method, Need

if TYPE_CHECKING:
    from peftguard.mitigation.traces import Trace


@dataclass(frozen=True)
class TriggerRemoval(Method):
    """No update reads the trigger any more, and no query is turned towards it.

    The head no longer reads what the base itself makes of it. All else stays as it was.
    """

    name = "remove-trigger"
    about = "the confirmed trigger's directions projected out of every factor and of the head"
    needs = frozenset({Need.BASE, Need.REPORT})

    def apply(self, adapter: Factored, given: Given) -> Factored:
        """As of `Method.apply`."""
        from peftguard.mitigation.traces import traces_of

        base = given.the_base()
        heads = {
            name: name.removeprefix(PREFIX).removesuffix(".weight")
            for name, tensor in adapter.heads.items()
            if tensor.ndim == 2
        }
        modules = [*adapter.layers, *heads.values()]
        traces = traces_of(base, modules, given.the_trigger().phrases)
        layers = {
            module: _removed(layer, traces[module]) for module, layer in adapter.layers.items()
        }
        deaf = {
            name: blind_to(adapter.heads[name], traces[module].inputs)
            for name, module in heads.items()
        }
        return replace(adapter, layers=layers, heads={**adapter.heads, **deaf})


def _removed(layer: Layer, trace: Trace) -> Layer:
    return with_factors(layer, without(layer.B, trace.keys), blind_to(layer.A, trace.inputs))
