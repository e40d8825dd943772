"""VeRA: y += diag(b) B diag(d) A x, with one random pair A, B for all modules.

PEFT makes A (r, widest in) and B (widest out, r) once, and gives every module the first columns and
rows it needs. They are stored, or drawn again from `projection_prng_key`, which takes torch's
generator. Either way a module's input width is not in the file; `vera_widths` works it out or gives
up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from typing import Any

from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.methods.config_values import flag, whole
from peftguard.adapters.methods.factors import check_size, misfit, need, pair
from peftguard.adapters.methods.vera_widths import input_widths
from peftguard.adapters.update import FloatArray, Update
from peftguard.errors import MissingExtra, UnsupportedAdapter

_SLICE_A, _SLICE_B = "vera_A slice", "vera_B slice"


class Vera:
    """Needs modules that `with_projections` has prepared: their widths depend on one another."""

    peft_type = "VERA"
    parts = frozenset({"vera_lambda_b", "vera_lambda_d", "vera_A", "vera_B"})

    def updates(self, module: ModuleParts, config: Mapping[str, Any]) -> Iterator[Update]:
        """One update of scale 1; b is folded into B and d into A.

        Raises:
            MalformedFile: a part is missing, or the shapes do not fit.
            UnsupportedAdapter: the module's input width cannot be told.
            MissingExtra: the projections are not stored, and torch is not installed.
            InputError: a config value of the wrong type.
        """
        b, d = need(module, "vera_lambda_b", 1), need(module, "vera_lambda_d", 1)
        if _SLICE_A not in module.shared:
            raise UnsupportedAdapter("VeRA without its projections", key=module.module)
        A, B = pair(module.shared[_SLICE_A](), module.shared[_SLICE_B](), module)
        if B.shape != (b.size, d.size) or 0 in B.shape:
            raise misfit(module, f"vera_B of shape ({b.size}, {d.size})", str(B.shape))
        yield Update(module.module, *pair(d[:, None] * A, b[:, None] * B, module))


def with_projections(
    modules: Mapping[str, ModuleParts], config: Mapping[str, Any]
) -> dict[str, ModuleParts]:
    """All modules of a VeRA adapter, each with its own slices of the projections among `shared`.

    Nothing is read or drawn before an update asks for it.
    """
    projections = _Projections(modules, config)
    return {
        name: replace(
            module,
            shared={
                **module.shared,
                _SLICE_A: partial(projections.slice_A, module),
                _SLICE_B: partial(projections.slice_B, module),
            },
        )
        for name, module in modules.items()
    }


class _Projections:
    """The pair of one adapter: read or drawn once, then sliced."""

    def __init__(self, modules: Mapping[str, ModuleParts], config: Mapping[str, Any]) -> None:
        self._modules, self._config = modules, config

    def slice_A(self, module: ModuleParts) -> FloatArray:
        """(r, in of the module)."""
        return self._stored_or_drawn(module)[0][:, : self._widths[module.module]]

    def slice_B(self, module: ModuleParts) -> FloatArray:
        """(out of the module, r)."""
        return self._stored_or_drawn(module)[1][: self._outputs[module.module]]

    def _stored_or_drawn(self, module: ModuleParts) -> tuple[FloatArray, FloatArray]:
        if self._stored is not None:
            return self._stored
        rank = module.info["vera_lambda_d"].shape[0]
        shapes = (rank, max(self._widths.values())), (max(self._outputs.values()), rank)
        check_size(module.module, *shapes)
        key = self._config.get("projection_prng_key", 0)
        return draw(*shapes, whole(key, "projection_prng_key", least=0))

    @cached_property
    def _stored(self) -> tuple[FloatArray, FloatArray] | None:
        """None if absent, or if the config says (`save_projection`) that PEFT is to ignore them."""
        first = next(iter(self._modules.values()))
        if not {"vera_A", "vera_B"} <= first.shared.keys():
            return None
        if self._config.get("save_projection") is not None and not flag(
            self._config, "save_projection"
        ):
            return None
        A, B = first.shared["vera_A"](), first.shared["vera_B"]()
        if A.ndim != 2 or B.ndim != 2:
            raise misfit(first, "vera_A and vera_B as matrices", f"{A.shape}, {B.shape}")
        return A, B

    @cached_property
    def _outputs(self) -> dict[str, int]:
        return {
            name: math.prod(module.info["vera_lambda_b"].shape)
            for name, module in self._modules.items()
            if "vera_lambda_b" in module.info
        }

    @cached_property
    def _widths(self) -> dict[str, int]:
        widest = None if self._stored is None else int(self._stored[0].shape[1])
        return input_widths(self._outputs, widest)


@lru_cache(maxsize=1)
def draw(
    shape_A: tuple[int, int], shape_B: tuple[int, int], key: int
) -> tuple[FloatArray, FloatArray]:
    """The projections as PEFT draws them on a CPU: Kaiming uniform, A first, from one generator.

    Raises:
        MissingExtra: torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtra("drawing VeRA's projections from their seed", "torch") from None
    generator = torch.Generator(device="cpu").manual_seed(key)
    drawn = []
    for shape in (shape_A, shape_B):
        bound = math.sqrt(3.0) * (math.sqrt(2.0) / math.sqrt(shape[1]))
        drawn.append(torch.empty(shape).uniform_(-bound, bound, generator=generator).numpy())
    return drawn[0], drawn[1]
