"""PEFT: `base_model.model.<module>.lora_A.weight` and the names of all its other methods.

Files differ in what surrounds the name: no prefix (vLLM, diffusers), the adapter's name before or
in place of `.weight` (raw state dicts), `_orig_mod` and `_fsdp_wrapped_module` levels (compiled,
sharded). `base_layer` levels stay in a module's path: nested wrappers (several `target_parameters`
of one module, attention blocks) have no other name to tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.keys.base import Part, Payload, PayloadKind
from peftguard.adapters.keys.suffixes import EMBEDDINGS
from peftguard.adapters.methods.peft_types import ALL_PREFIXES

PREFIX = "base_model.model."
"""Of every module, in files of peft."""
_GLOBAL_PREFIX = "base_model."
_WRAPPERS = ("_fsdp_wrapped_module.", "_orig_mod.")
_PER_MODULE = ("lora_", "hada_", "lokr_", "vera_lambda_")
_HEADS = frozenset(
    {
        "classifier",
        "score",
        "pre_classifier",
        "qa_outputs",
        "classification_head",
        "logits_proj",
        "sequence_summary",
        "summary",
        "v_head",
    }
)
_HEAD_LAYERS = frozenset({"", "dense", "out_proj", "summary"})
"""Matrices of a head that the transformers and TRL build of more than one layer."""
_SQUARE_HEADS = frozenset(
    {"pre_classifier", "classifier.dense", "classification_head.dense", "sequence_summary.summary"}
)
_WIDEST_SQUARE = 64
"""A square matrix with more labels than this is no plain head."""
_OUTPUT_EMBEDDINGS = frozenset({"lm_head", "embed_out", "wpe", "embed_positions", "shared"})
_SOFT_PROMPTS = frozenset({"prompt_embeddings", "prefix_task_cols", "prefix_task_rows"})
_INSERTED = frozenset({"base_layer", "original_module", "token_adapter"})


class PeftGrammar:
    """Names that PEFT writes, and what was made for its readers."""

    name = "peft"

    def recognises(
        self, tensors: Mapping[str, TensorInfo], config: Mapping[str, object] | None
    ) -> bool:
        """True if any tensor belongs to a PEFT method."""
        return any(isinstance(_entry(info, ()), Part) for info in tensors.values())

    def parse(
        self, tensors: Mapping[str, TensorInfo], config: Mapping[str, object] | None
    ) -> list[Part | Payload]:
        """Parts of every method, also of those without an exact update; the rest is payload.

        An `alpha` tensor counts only without a config: PEFT itself ignores it.
        """
        saved = None if config is None else _names(config.get("modules_to_save"))
        return [_entry(info, saved) for info in tensors.values()]


def _entry(info: TensorInfo, saved: tuple[str, ...] | None) -> Part | Payload:
    path, is_global = _path(info.name)
    parent, _, leaf = path.rpartition(".")
    if leaf in _SOFT_PROMPTS:
        return Payload(info.name, path, "soft-prompt")
    if "trainable_tokens_" in path:
        return Payload(
            info.name, _base_path(path.partition(".trainable_tokens_")[0]), "token-delta"
        )
    if saved is None and leaf == "alpha" and parent:
        return Part(info.name, parent, "alpha")
    if (found := _part(path)) is not None:
        module, part = found
        if module or (is_global and not part.startswith(_PER_MODULE)):
            return Part(info.name, module, part)
        return Payload(info.name, path, "unexplained")
    plain = _base_path(path)
    return Payload(info.name, plain.rpartition(".")[0] or plain, _payload_kind(plain, info, saved))


def _path(name: str) -> tuple[str, bool]:
    """The name without its surroundings, and whether it belongs to the adapter as a whole."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    if name.startswith(f"module.{_GLOBAL_PREFIX}"):
        name = name.removeprefix("module.")
    if name.startswith(PREFIX):
        return name.removeprefix(PREFIX), False
    return name.removeprefix(_GLOBAL_PREFIX), name.startswith(_GLOBAL_PREFIX)


def _part(path: str) -> tuple[str, str] | None:
    """(module, part) of a method's tensor; the last level that a method names decides."""
    pieces = path.split(".")
    for index in reversed(range(len(pieces))):
        if pieces[index].startswith(ALL_PREFIXES):
            return ".".join(pieces[:index]), _part_name(pieces[index], pieces[index + 1 :])
    return None


def _part_name(name: str, rest: list[str]) -> str:
    """`lora_A`, `lora_B.bias`, `lily_router.0`: without `weight` and the adapter's name."""
    ending = rest[-1] if rest and rest[-1] in ("weight", "bias") else None
    between = rest[:-1] if ending else rest
    if (ending and len(between) == 1) or between == ["default"]:
        between = []
    return ".".join([name, *between, *(["bias"] if ending == "bias" else [])])


def _base_path(path: str) -> str:
    """The path in the base model, without levels that PEFT puts between."""
    pieces = path.split(".")
    if "modules_to_save" in pieces:
        index = pieces.index("modules_to_save")
        del pieces[index : index + 2]
    return ".".join(piece for piece in pieces if piece not in _INSERTED) or path


def _payload_kind(path: str, info: TensorInfo, saved: tuple[str, ...] | None) -> PayloadKind:
    module, _, leaf = path.rpartition(".")
    last, first = module.rpartition(".")[2], path.partition(".")[0]
    is_vector = len(info.shape) <= 1
    if first in _HEADS:
        return "classifier-head" if is_vector or _is_head(module, info) else "module-to-save"
    if is_vector and leaf in ("weight", "bias") and ("norm" in last.lower() or last[:3] == "ln_"):
        return "norm"
    if is_vector and leaf == "bias":
        return "bias"
    if len(info.shape) == 2 and (last in EMBEDDINGS or last in _OUTPUT_EMBEDDINGS):
        return "embedding"
    if saved is None:
        return "module-to-save" if leaf == "weight" and module else "unexplained"
    return "module-to-save" if any(f".{n}." in f".{path}" for n in saved) else "unexplained"


def _is_head(module: str, info: TensorInfo) -> bool:
    """True for the matrix of a known head: one layer, or the names of a known second one."""
    layer = module.partition(".")[2]
    is_wide_square = info.shape[0] == info.shape[1] > _WIDEST_SQUARE
    if is_wide_square and module not in _SQUARE_HEADS:
        return False
    return layer in _HEAD_LAYERS and len(info.shape) == 2


def _names(value: object) -> tuple[str, ...]:
    """Names in a config field; one of the wrong type names nothing, and is reported elsewhere."""
    return tuple(n for n in value if isinstance(n, str)) if isinstance(value, list) else ()


PEFT = PeftGrammar()
