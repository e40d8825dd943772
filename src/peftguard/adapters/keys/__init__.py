"""Which dialect a file's tensor names are in, and what its settings are in PEFT's terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.keys import diffusers, gguf, kohya, mlx
from peftguard.adapters.keys.base import Grammar
from peftguard.adapters.keys.peft import PEFT
from peftguard.limits import Limits

_EMBEDDED: tuple[Callable[[Mapping[str, str], Limits], dict[str, object] | None], ...] = (
    gguf.config_from_metadata,
    diffusers.config_from_metadata,
    kohya.config_from_metadata,
)
_DIALECTS: tuple[Grammar, ...] = (mlx.MLX, gguf.GGUF, kohya.KOHYA, diffusers.DIFFUSERS)


def recognise(
    tensors: Mapping[str, TensorInfo], config: Mapping[str, object] | None, container: str = ""
) -> Grammar:
    """The dialect of a file: PEFT's if its config names a `peft_type` or no other dialect fits.

    A GGUF `container` is always in llama.cpp's: nothing else reads one, whatever its names.
    """
    if container == "gguf":
        return gguf.GGUF
    if config is not None and "peft_type" in config:
        return PEFT
    return next((dialect for dialect in _DIALECTS if dialect.recognises(tensors, config)), PEFT)


def config_from_metadata(metadata: Mapping[str, str], limits: Limits) -> dict[str, object] | None:
    """Settings that a file carries in its own metadata, as PEFT config fields; None if it has none.

    Raises as `peftguard.adapters.keys.diffusers.config_from_metadata`.
    """
    for read in _EMBEDDED:
        config = read(metadata, limits)
        if config is not None:
            return config
    return None


def in_peft_terms(
    config: Mapping[str, object], stored_rank: int | None = None
) -> dict[str, object]:
    """An adapter_config.json with PEFT's fields, whoever wrote it; PEFT's own stays as it is.

    `stored_rank` is that of the tensors, for a dialect that need not state it.
    """
    return mlx.in_peft_terms(config, stored_rank) if mlx.is_mlx_config(config) else dict(config)
