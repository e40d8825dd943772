"""diffusers: `unet.`, `transformer.`, `text_encoder.` before the module, four kinds of suffix.

Newest first: `.lora_A.weight` (as PEFT), `.lora.down.weight`, `.lora_linear_layer.down.weight`
(text encoders), `.processor.to_q_lora.down.weight` (attention processors). Settings are in the
file's metadata or in sibling `.alpha` tensors; without either the scale is 1. Follows
`diffusers/utils/state_dict_utils.py` and `loaders/lora_base.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.jsonfile import read_json
from peftguard.adapters.keys.base import Part, Payload
from peftguard.adapters.keys.suffixes import PARTS, PAYLOADS, leftover, split_suffix
from peftguard.errors import UnsupportedAdapter
from peftguard.limits import Limits

METADATA_KEY = "lora_adapter_metadata"

_OLD = re.compile(
    r"(?P<module>.+?)(?P<to>\.to_(?:q|k|v|out)_lora|\.lora|\.lora_linear_layer)\."
    r"(?P<way>down|up)\.(?P<leaf>weight|bias)",
    re.DOTALL,
)
_COMPONENT = re.compile(
    r"(?:unet|transformer(?:_\d)?(?!\.(?:h|encoder)\.)|text_encoder(?:_\d)?|diffusion_model"
    r"|prior|decoder|controlnet|image_encoder|connectors)\."
)
_OWNERS = (".to_q_lora", ".to_k_lora", ".to_v_lora", ".to_out_lora", ".lora", ".lora_linear_layer")
_WAYS = {"down": "lora_A", "up": "lora_B"}
_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_MUST_AGREE = ("peft_type", "use_rslora", "use_dora", "init_lora_weights", "fan_in_fan_out")


class DiffusersGrammar:
    """Names of diffusers pipelines, and of tools that put `diffusion_model.` in front instead."""

    name = "diffusers"

    def recognises(
        self, tensors: Mapping[str, TensorInfo], config: Mapping[str, object] | None
    ) -> bool:
        """True if any factor has an old suffix, or belongs to a pipeline component."""
        return any(
            _OLD.fullmatch(name) is not None
            or (_COMPONENT.match(name) is not None and split_suffix(name)[0] != "")
            for name in tensors
        )

    def parse(
        self, tensors: Mapping[str, TensorInfo], config: Mapping[str, object] | None
    ) -> list[Part | Payload]:
        """Modules keep their component, so that the encoders of one pipeline stay apart."""
        return [_parse(info) for info in tensors.values()]


def _parse(info: TensorInfo) -> Part | Payload:
    name = info.name.replace(".processor.", ".")
    if factor := _factor(name):
        return Part(info.name, *factor)
    module, suffix = split_suffix(name)
    if not module:
        return leftover(info)
    if suffix in PAYLOADS:
        return Payload(info.name, module, PAYLOADS[suffix])
    if suffix == "alpha":
        return Part(info.name, _owner(module), "alpha")
    return Part(info.name, module, PARTS[suffix])


def _factor(name: str) -> tuple[str, str] | None:
    """(module, part) of a factor with one of the old suffixes."""
    match = _OLD.fullmatch(name)
    if match is None or (match["leaf"] == "bias" and match["way"] == "down"):
        return None
    part = _WAYS[match["way"]] + (".bias" if match["leaf"] == "bias" else "")
    return _modern(match["module"], match["to"]), part


def _owner(module: str) -> str:
    """The module that an alpha belongs to: it stands beside the module, or beside its factor."""
    if factor := _factor(module):
        return factor[0]
    inner, suffix = split_suffix(module)
    if inner and PARTS.get(suffix) == "lora_A":
        return inner
    for to in _OWNERS:
        if module.endswith(to):
            return _modern(module.removesuffix(to), to)
    return module


def _modern(module: str, to: str) -> str:
    """Where an attention processor's factor sits today: `to_out_lora` is the module `to_out.0`."""
    if not to.startswith(".to_"):
        return module
    projection = to[1:].removesuffix("_lora")
    if module.startswith("text_encoder"):
        return f"{module}.{_TEXT_NAMES[projection]}"
    return f"{module}.{'to_out.0' if projection == 'to_out' else projection}"


def config_from_metadata(metadata: Mapping[str, str], limits: Limits) -> dict[str, object] | None:
    """The LoraConfigs that diffusers keeps in the file, as one; None if there are none.

    Each key there is `<component>.<field>`. Where components differ in rank or alpha, the result
    has patterns that start with the component's name.

    Raises:
        MalformedFile: the JSON text breaks its format.
        LimitExceeded: it is too large or too deep.
        UnsupportedAdapter: the components differ in how they scale or start.
    """
    if not metadata.get(METADATA_KEY):
        return None
    flat = read_json(metadata[METADATA_KEY].encode(), file=METADATA_KEY, limits=limits)
    components: dict[str, dict[str, object]] = {}
    for key, value in flat.items():
        component, dot, setting = key.partition(".")
        components.setdefault(component if dot else "", {})[setting if dot else key] = value
    return _joined(components) if components else None


def _joined(components: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    first, *others = components.values()
    for key in _MUST_AGREE:
        if any(other.get(key) != first.get(key) for other in others):
            raise UnsupportedAdapter(f"components disagree about {key}", file=METADATA_KEY, key=key)
    return {
        **first,
        "rank_pattern": _patterns(components, "rank_pattern", "r"),
        "alpha_pattern": _patterns(components, "alpha_pattern", "lora_alpha"),
    }


def _patterns(
    components: Mapping[str, Mapping[str, object]], patterns: str, default: str
) -> dict[str, object]:
    """All components' patterns, each bound to its component; PEFT takes the first that matches."""
    joined: dict[str, object] = {}
    for component, config in components.items():
        prefix = f"{re.escape(component)}\\." if component and len(components) > 1 else ""
        own = config.get(patterns)
        for key, value in own.items() if isinstance(own, dict) else ():
            joined[f"{prefix}(?:.*\\.)?{key}" if prefix else str(key)] = value
        if prefix and default in config:
            joined[f"{prefix}.*"] = config[default]
    return joined


DIFFUSERS = DiffusersGrammar()
