"""kohya sd-scripts and LyCORIS: one file, modules flattened with underscores, alpha as a tensor.

`lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight`. The flattened name is kept as the
module: which underscore was a dot cannot be told without the base model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.keys.base import Part, Payload
from peftguard.adapters.keys.suffixes import PARTS, PAYLOADS, leftover
from peftguard.limits import Limits

_NAME = re.compile(r"(?P<module>(?:lora|lycoris|oft)_[^.]+)\.(?P<suffix>.+)", re.DOTALL)
_BASE_MODEL = ("ss_sd_model_name", "ss_base_model_version", "modelspec.architecture")


class KohyaGrammar:
    """Names of kohya, LyCORIS and what was exported for their readers."""

    name = "kohya"

    def recognises(
        self, tensors: Mapping[str, TensorInfo], config: Mapping[str, object] | None
    ) -> bool:
        """True if any tensor has a flattened module and a suffix that this dialect knows."""
        return any(
            (match := _NAME.fullmatch(name)) is not None
            and (match["suffix"] in PARTS or match["suffix"] in PAYLOADS)
            for name in tensors
        )

    def parse(
        self, tensors: Mapping[str, TensorInfo], config: Mapping[str, object] | None
    ) -> list[Part | Payload]:
        """`diff` and its kin are full differences: payload, not updates."""
        return [_parse(info) for info in tensors.values()]


def _parse(info: TensorInfo) -> Part | Payload:
    match = _NAME.fullmatch(info.name)
    if match is None:
        return leftover(info)
    module, suffix = match["module"], match["suffix"]
    if suffix in PARTS:
        return Part(info.name, module, PARTS[suffix])
    return Payload(info.name, module, PAYLOADS.get(suffix, "unexplained"))


def config_from_metadata(metadata: Mapping[str, str], limits: Limits) -> dict[str, object] | None:
    """The base model that sd-scripts noted down; None for files of other trainers.

    `ss_network_dim` and `ss_network_alpha` are left out on purpose: no loader reads them, the scale
    comes from each module's `alpha` tensor (without one it is 1), and convolutions have their own.
    """
    if not any(key.startswith("ss_") for key in metadata):
        return None
    base = next((metadata[key] for key in _BASE_MODEL if metadata.get(key)), None)
    return {} if base is None else {"base_model_name_or_path": base[: limits.max_name_length]}


KOHYA = KohyaGrammar()
