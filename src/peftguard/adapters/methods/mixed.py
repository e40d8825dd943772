"""LyCORIS files whose modules differ in method: each module is read by its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from peftguard.adapters.methods.base import Method, ModuleParts
from peftguard.adapters.methods.peft_types import method_of_parts
from peftguard.adapters.update import Update
from peftguard.errors import UnsupportedAdapter


class Mixed:
    """Several methods, one a module."""

    def __init__(self, methods: Sequence[Method]) -> None:
        self._methods = {method.peft_type: method for method in methods}
        self.peft_type = "+".join(sorted(self._methods))
        self.parts = frozenset().union(*(method.parts for method in methods))

    def updates(self, module: ModuleParts, config: Mapping[str, Any]) -> Iterator[Update]:
        """As the method that the module's own parts tell.

        Raises:
            UnsupportedAdapter: the module has parts of two methods; reading one would hide the
                other.
        """
        method = self._methods[method_of_parts(module.info)]
        if strange := (module.info.keys() & self.parts) - method.parts:
            message = f"parts of {method.peft_type} and of another method in one module"
            raise UnsupportedAdapter(message, key=module.module, found=", ".join(sorted(strange)))
        yield from method.updates(module, config)
