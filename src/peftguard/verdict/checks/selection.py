"""Which modules PEFT adapts under a config, as far as their names tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from peftguard.adapters import patterns
from peftguard.adapters.methods.config_values import names, whole
from peftguard.errors import InputError

Names = str | frozenset[str]
"""An expression, or names of which each stands for all modules that end in it."""

_NAME = re.compile(r"[\w-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a config takes and what it leaves out.

    Args:
        targets: what is adapted; empty where names do not tell (`all-linear`, PEFT's defaults).
        excluded: what is not, though it be a target.
        layers: numbers of the only layers that are adapted; empty means all.
        stacks: names of the lists that these layers are numbered in; empty means any.
    """

    targets: Names
    excluded: Names
    layers: frozenset[int]
    stacks: tuple[str, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Read PEFT's settings.

        Raises:
            InputError: a value of the wrong type, or an expression where only names are run.
        """
        targets = _names(config, "target_modules")
        stacks = config.get("layers_pattern")
        given = (stacks,) if isinstance(stacks, str) and stacks else names(config, "layers_pattern")
        return cls(
            targets=frozenset() if targets == "all-linear" else targets,
            excluded=_names(config, "exclude_modules"),
            layers=_layers(config.get("layers_to_transform")),
            stacks=tuple(_plain(name) for name in given),
        )

    def leaves_out(self, module: str) -> str | None:
        """What the config does to a module that PEFT does not adapt, None if it adapts it.

        Raises:
            InputError: `integrity.pattern-skipped`, an expression was not run.
        """
        if self.excluded and patterns.targets(self.excluded, module):
            return "excludes"
        if self.targets and not patterns.targets(self.targets, module):
            return "does not target"
        named_in_full = not isinstance(self.targets, str) and module in self.targets
        if self.layers and not named_in_full and self._layer(module) not in self.layers:
            return "leaves out the layers of"
        return None

    def absent(self, modules: set[str]) -> list[str]:
        """Names among the targets that no module answers to, though nothing excludes them."""
        if isinstance(self.targets, str) or (isinstance(self.excluded, str) and self.excluded):
            return []  # What an expression would match in the whole model, names do not tell.
        answered = {suffix for module in modules for suffix in patterns.suffixes(module)}
        return sorted(
            name for name in self.targets - answered if not patterns.targets(self.excluded, name)
        )

    def _layer(self, module: str) -> int | None:
        """The number that PEFT takes for the module's layer; it sees none in `layers.0.q`."""
        starts = [rf"(?:^|\.){stack}" for stack in self.stacks] or [r"\.[^.]*"]
        found = (re.search(rf"{start}\.(\d{{1,9}})\.", module) for start in starts)
        return next((int(match[1]) for match in found if match), None)


def _names(config: Mapping[str, Any], key: str) -> Names:
    value = config.get(key)
    return value if isinstance(value, str) else frozenset(names(config, key))


def _layers(value: object) -> frozenset[int]:
    given = value if isinstance(value, list) else [] if value is None else [value]
    return frozenset(whole(layer, "layers_to_transform", least=0) for layer in given)


def _plain(name: str) -> str:
    if _NAME.fullmatch(name):
        return name
    raise InputError(
        "an expression in the config was not run",
        key="layers_pattern",
        expected="the name of a list of layers",
        found=name,
        code="integrity.pattern-skipped",
    )
