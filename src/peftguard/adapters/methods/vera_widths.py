"""How wide each module's input is, from what the file shows: output widths and one overall maximum.

Within one stack of layers every projection that reads the residual stream has the same input width,
and that is the output width of those that write to it. Only names that mean the same in every model
are used; where they do not settle it there is no guess.
"""

from __future__ import annotations

from collections.abc import Mapping

from peftguard.errors import UnsupportedAdapter

READERS = frozenset(
    {"q_proj", "k_proj", "v_proj", "qkv_proj", "query", "key", "value", "query_key_value"}
    | {"c_attn", "W_pack", "Wqkv", "gate_proj", "up_proj", "gate_up_proj", "c_fc", "dense_h_to_4h"}
)
"""Read the residual stream."""
WRITERS = {"o_proj": ("q_proj",), "down_proj": ("up_proj", "gate_proj")}
"""Write to it, and read what these siblings put out."""


def input_widths(outputs: Mapping[str, int], widest: int | None) -> dict[str, int]:
    """Input width of every module.

    Args:
        outputs: output width of every adapted module, by path.
        widest: the largest input width, None if unknown.

    Raises:
        UnsupportedAdapter: a width cannot be told without the base model.
    """
    _refuse_cross_attention(outputs)
    if widest is not None and _is_uniform(outputs):
        return dict.fromkeys(outputs, widest)
    hidden = _hidden_widths(outputs)
    return {module: _width(module, outputs, hidden) for module in outputs}


def _refuse_cross_attention(outputs: Mapping[str, int]) -> None:
    """Keys and values of cross-attention read another stream than all else in their stack."""
    crossed = next((module for module in outputs if _is_cross(module)), None)
    stacks = {_stack(module) for module in outputs if _is_cross(module)}
    kinds = {
        (_stack(module), _is_cross(module), _role(module))
        for module in outputs
        if _stack(module) in stacks
    }
    if len(kinds) > len(stacks):
        raise UnsupportedAdapter(
            "cross-attention reads two streams: it takes the base model to tell their widths",
            key=crossed,
        )


def _is_cross(module: str) -> bool:
    """By the levels below the stack: a whole model may well be called a cross-encoder."""
    below = module.removeprefix(_stack(module)).lower()
    return "cross" in below or "encoder_attn" in below


def _is_uniform(outputs: Mapping[str, int]) -> bool:
    """One stack whose modules all read the residual stream, or all play one role."""
    roles = {_role(module) for module in outputs}
    return len({_stack(module) for module in outputs}) == 1 and (
        len(roles) == 1 or roles <= READERS
    )


def _hidden_widths(outputs: Mapping[str, int]) -> dict[str, int | None]:
    """Width of the residual stream by stack; None where its writers disagree."""
    hidden: dict[str, int | None] = {}
    for module, width in outputs.items():
        if _role(module) in WRITERS:
            agrees = hidden.setdefault(_stack(module), width) == width
            hidden[_stack(module)] = width if agrees else None
    return hidden


def _width(module: str, outputs: Mapping[str, int], hidden: Mapping[str, int | None]) -> int:
    role = _role(module)
    width = hidden.get(_stack(module)) if role in READERS else None
    for sibling in WRITERS.get(role, ()):
        width = width or outputs.get(module.removesuffix(role) + sibling)
    if width is None:
        raise UnsupportedAdapter(
            "the input width is not in the file: it takes the base model to place the projections",
            key=module,
        )
    return width


def _role(module: str) -> str:
    return module.rpartition(".")[2]


def _stack(module: str) -> str:
    """Path up to the first index."""
    pieces = module.split(".")
    first = next((i for i, piece in enumerate(pieces) if piece.isdecimal()), 0)
    return ".".join(pieces[:first])
