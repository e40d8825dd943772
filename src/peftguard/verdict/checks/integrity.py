"""Does an adapter's config agree with its tensors? Nothing but headers is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from peftguard.adapters import patterns
from peftguard.adapters.adapter import Adapter
from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.methods.config_values import names
from peftguard.adapters.methods.experts import parameter_names
from peftguard.adapters.methods.scaling import config_rank, owner
from peftguard.adapters.modules import stored_rank
from peftguard.errors import InputError
from peftguard.findings import Finding, found
from peftguard.verdict.checks.files import listed


def check_integrity(adapter: Adapter) -> Iterator[Finding]:
    """Findings about ranks and target modules; wrong types were reported on reading."""
    with suppress(InputError):
        yield from _check_ranks(adapter)
    with suppress(InputError):
        yield from _check_targets(adapter)


def _check_ranks(adapter: Adapter) -> Iterator[Finding]:
    wrong = [
        (name, declared, stored)
        for name, module in adapter.modules.items()
        for declared, stored in _ranks(adapter, module)
        if declared != stored
    ]
    if wrong:
        module, declared, stored = wrong[0]
        others = f" (and {len(wrong) - 1} more modules)" if len(wrong) > 1 else ""
        message = f"the config says {declared}, the tensors have {stored}: {module}{others}"
        yield found("integrity.rank-mismatch", message, module=module)


def _ranks(adapter: Adapter, module: ModuleParts) -> Iterator[tuple[int, int]]:
    """(declared, stored) rank of one module, where both mean the same thing."""
    config = adapter.config
    stored = stored_rank(module)
    if stored is None or config.get("r") is None or "experts_lora_B" in module.info:
        return
    if adapter.peft_type == "ADALORA" or parameter_names(module.module, config):
        return
    yield config_rank(owner(module.module), config), stored


def _check_targets(adapter: Adapter) -> Iterator[Finding]:
    config = adapter.config
    if adapter.format != "peft" or names(config, "target_parameters"):
        return
    targets = config.get("target_modules")
    if isinstance(targets, str) and targets == "all-linear":
        return
    modules = [owner(name) for name in adapter.modules]
    if isinstance(targets, list) and all(isinstance(name, str) for name in targets):
        absent = [name for name in targets if not _any_targeted([name], modules)]
        if absent and modules:
            yield found("integrity.target-missing", f"no tensors for {listed(absent)}")
    if targets and isinstance(targets, list | str):
        extra = [module for module in modules if not patterns.targets(targets, module)]
        if extra:
            message = f"the config does not target {listed(extra)}: PEFT ignores their tensors"
            yield found("integrity.untargeted-module", message, module=extra[0])


def _any_targeted(target: list[str], modules: list[str]) -> bool:
    return any(patterns.targets(target, module) for module in modules)


def is_ambiguous(adapter: Adapter) -> bool:
    """True if a rank disagrees with the config: no loader takes that, so no scale is right."""
    with suppress(InputError):
        return any(True for _ in _check_ranks(adapter))
    return False
