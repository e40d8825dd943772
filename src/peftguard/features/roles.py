"""What a module is within its layer, whatever its base model calls it."""

from __future__ import annotations

_ROLES = {
    "qkv": {"qkv", "qkv_proj", "query_key_value", "c_attn", "wqkv", "in_proj"},
    "q": {"q", "q_proj", "query", "to_q", "q_lin", "wq"},
    "k": {"k", "k_proj", "key", "to_k", "k_lin", "wk"},
    "v": {"v", "v_proj", "value", "to_v", "v_lin", "wv"},
    "o": {"o", "o_proj", "out_proj", "to_out", "out_lin", "attention.output.dense", "attn.c_proj"}
    | {"attention.dense", "self_attention.dense", "self_attn.dense", "attention.wo"},
    "gate": {"gate_proj", "wi_0", "w1"},
    "up": {"up_proj", "gate_up_proj", "wi", "wi_1", "w3", "fc1", "c_fc", "lin1"}
    | {"intermediate.dense", "dense_h_to_4h"},
    "down": {"down_proj", "w2", "fc2", "lin2", "output.dense", "mlp.c_proj", "dense_4h_to_h"}
    | {"densereludense.wo"},
}
"""Ends of a module's path within its layer, longest first to match; anything else is `other`."""

ROLES = (*_ROLES, "other")

_ROLE_OF = {end: role for role, ends in _ROLES.items() for end in ends}


def role_of(path: str) -> str:
    """What a module is in its layer, from its path there: `self_attn.q_proj` is `q`."""
    parts = [part for part in path.lower().split(".") if not part.isdecimal()]
    ends = (".".join(parts[start:]) for start in range(max(0, len(parts) - 3), len(parts)))
    return next((_ROLE_OF[end] for end in ends if end in _ROLE_OF), "other")
