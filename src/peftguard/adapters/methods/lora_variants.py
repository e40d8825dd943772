"""Settings of a LoRA config that change what its two factors mean.

`pissa`, `olora`, `corda`, `lora_ga` and `loftq` put something else in the base weight's place when
training starts, so that `B @ A` is not the change; `eva`, `orthogonal` and `mica` do not touch the
base. VeLoRA and MonteCLoRA are plain LoRA outside training, aLoRA is from its invocation tokens on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.methods.config_values import mapping, names, whole, wrong_type
from peftguard.adapters.methods.factors import check_size, misfit, need
from peftguard.adapters.methods.scaling import owner
from peftguard.adapters.update import FloatArray
from peftguard.errors import UnsupportedAdapter

HARMLESS_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica", "true", "false"})

_UNDEFINED = {
    "arrow_config": "routes every token to other experts",
    "kasa_config": "truncates the base weight's spectrum",
    "use_qalora": "pools the inputs only if the base is GPTQ-quantised",
}


def refuse_undefined(config: Mapping[str, Any]) -> None:
    """Raise `UnsupportedAdapter` where the factors alone do not define the change.

    Raises:
        InputError: `init_lora_weights` is neither a name nor a switch.
    """
    for key, why in _UNDEFINED.items():
        if config.get(key):
            raise UnsupportedAdapter(f"a LoRA whose {key} {why}", key=key)
    init = config.get("init_lora_weights")
    if init is None or isinstance(init, bool):
        return
    if not isinstance(init, str):
        raise wrong_type("init_lora_weights", "true, false or a name", init)
    if moves_base(config):
        raise UnsupportedAdapter(
            "the initialisation changes the base weight",
            key="init_lora_weights",
            found=init,
            code="method.mutated-init",
        )


def moves_base(config: Mapping[str, Any]) -> bool:
    """True if the initialisation changes the base weight: the stored product is no change then."""
    init = config.get("init_lora_weights")
    return isinstance(init, str) and init.lower() not in HARMLESS_INITS


def block_diagonal(module: ModuleParts, config: Mapping[str, Any], part: str) -> FloatArray:
    """`lora_A` or `lora_B`; written out in full where BD-LoRA stores only its diagonal blocks.

    A (r, in / n) stands for (r, in), B (out, r / n) for (out, r): n blocks stacked by rows. Which
    factor of which module is decided by texts that occur in the module's path.
    """
    array = need(module, part)
    settings = mapping(config, "use_bdlora")
    if not settings:
        return array
    key = "target_modules_bd_a" if part == "lora_A" else "target_modules_bd_b"
    if not any(text in owner(module.module) for text in names(settings, key)):
        return array
    n_blocks = whole(settings.get("nblocks", 1), "use_bdlora.nblocks", least=1)
    if array.ndim != 2 or array.shape[0] % n_blocks:
        raise misfit(module, f"{part} of {n_blocks} blocks", str(array.shape))
    return blocks_on_diagonal(array, n_blocks, module)


def blocks_on_diagonal(array: FloatArray, n_blocks: int, module: ModuleParts) -> FloatArray:
    """(n * p, q), n blocks stacked by rows, as the block-diagonal (n * p, n * q)."""
    height, width = array.shape[0] // n_blocks, array.shape[1]
    check_size(module.module, (array.shape[0], n_blocks * width))
    full = np.zeros((n_blocks, height, n_blocks, width), dtype=array.dtype)
    index = np.arange(n_blocks)
    full[index, :, index, :] = array.reshape(n_blocks, height, width)
    return full.reshape(n_blocks * height, n_blocks * width)
