"""Know whether a LoRA/PEFT adapter is backdoored before you load it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from peftguard.adapters.adapter import Adapter, open_adapter
    from peftguard.adapters.update import Update
    from peftguard.api import scan
    from peftguard.errors import PeftGuardError
    from peftguard.results import Label, Result, Scan, Verdict

__all__ = [
    "Adapter",
    "Label",
    "PeftGuardError",
    "Result",
    "Scan",
    "Update",
    "Verdict",
    "__version__",
    "open_adapter",
    "scan",
]

_HOMES = {
    "Adapter": "peftguard.adapters.adapter",
    "Label": "peftguard.results",
    "PeftGuardError": "peftguard.errors",
    "Result": "peftguard.results",
    "Scan": "peftguard.results",
    "Update": "peftguard.adapters.update",
    "Verdict": "peftguard.results",
    "open_adapter": "peftguard.adapters.adapter",
    "scan": "peftguard.api",
}


def __getattr__(name: str) -> Any:
    """Import public names on first use: `peftguard --version` must not pay for numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'peftguard' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
