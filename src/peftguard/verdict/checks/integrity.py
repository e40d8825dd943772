"""Does an adapter's config agree with its tensors? Nothing but headers is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from peftguard.adapters import patterns
from peftguard.adapters.adapter import Adapter
from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.methods.config_values import mapping, names, whole
from peftguard.adapters.methods.experts import parameter_names
from peftguard.adapters.methods.scaling import owner
from peftguard.adapters.modules import stored_rank
from peftguard.adapters.update import place_of
from peftguard.errors import InputError
from peftguard.findings import Finding, found
from peftguard.verdict.checks.files import listed


@dataclass(slots=True)
class Agreement:
    """What comparing config and tensors gave; `incomplete` holds clauses, as in `Evidence`."""

    findings: list[Finding] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)


def check_integrity(adapter: Adapter) -> Agreement:
    """Compare ranks and target modules with the config; what cannot be compared is said."""
    agreement = Agreement()
    _run(agreement, adapter, _check_ranks, "ranks")
    if agreement.findings and not agreement.incomplete:
        # No loader takes such a file, so it is unknown what its update would be multiplied by.
        agreement.incomplete.append(
            "its ranks disagree with its config, so no scale is the right one"
        )
    _run(agreement, adapter, _check_targets, "target modules")
    agreement.incomplete += _rearranged(adapter)
    return agreement


def _run(
    agreement: Agreement,
    adapter: Adapter,
    check: Callable[[Adapter], Iterator[Finding]],
    compared: str,
) -> None:
    try:
        agreement.findings += check(adapter)
    except InputError as error:
        agreement.findings.append(found(error.code, str(error), tensor=error.key))
        agreement.incomplete.append(
            f"its {compared} could not be compared with its config: {error}"
        )


def _check_ranks(adapter: Adapter) -> Iterator[Finding]:
    wrong = [
        (name, declared, stored) for name, declared, stored in _ranks(adapter) if declared != stored
    ]
    if wrong:
        module, declared, stored = wrong[0]
        others = f" (and {len(wrong) - 1} more modules)" if len(wrong) > 1 else ""
        message = f"the config says {declared}, the tensors have {stored}: {module}{others}"
        yield found("integrity.rank-mismatch", message, module=module)


def _ranks(adapter: Adapter) -> Iterator[tuple[str, int, int]]:
    """(module, declared rank, stored rank), where both mean the same thing."""
    config = adapter.config
    if config.get("r") is None or adapter.peft_type == "ADALORA":
        return
    pattern = mapping(config, "rank_pattern")
    expressions = patterns.Expressions(pattern)
    for name, module in adapter.modules.items():
        adapter.deadline.check("comparing ranks with the config")
        stored = _comparable_rank(adapter, module)
        if stored is not None:
            matched = expressions.first_match(owner(name))
            declared = config["r"] if matched is None else pattern[matched]
            key = "r" if matched is None else "rank_pattern"
            yield name, whole(declared, key, least=1), stored


def _comparable_rank(adapter: Adapter, module: ModuleParts) -> int | None:
    """The stored rank; None for stacks of experts, whose rows hold many ranks."""
    if "experts_lora_B" in module.info or parameter_names(module.module, adapter.config):
        return None
    return stored_rank(module)


def _check_targets(adapter: Adapter) -> Iterator[Finding]:
    config = adapter.config
    if adapter.format != "peft" or names(config, "target_parameters"):
        return
    targets = config.get("target_modules")
    if targets == "all-linear":
        return
    wanted = targets if isinstance(targets, str) else frozenset(names(config, "target_modules"))
    if not wanted:
        return
    present, extra = _compare(adapter, wanted)
    if not isinstance(wanted, str) and adapter.modules:
        absent = [name for name in names(config, "target_modules") if name not in present]
        if absent:
            yield found("integrity.target-missing", f"no tensors for {listed(absent)}")
    if extra:
        message = f"the config does not target {listed(extra)}: PEFT ignores their tensors"
        yield found("integrity.untargeted-module", message, module=extra[0])


def _rearranged(adapter: Adapter) -> Iterator[str]:
    """Settings by which a loader makes something else of the updates than their names say."""
    if adapter.config.get("layer_replication"):
        yield "it repeats layers of the base model"
    layers = adapter.config.get("layers_to_transform")
    chosen = layers if isinstance(layers, list) else [] if layers is None else [layers]
    wanted = {str(layer) for layer in chosen}
    numbers = (place_of(module).number for module in adapter.modules)
    if wanted and any(str(number) not in wanted for number in numbers if number is not None):
        yield "its settings leave out layers that the file has updates for"


def _compare(adapter: Adapter, wanted: str | frozenset[str]) -> tuple[set[str], list[str]]:
    """The names in `wanted` that some module answers to, and the modules that it leaves out."""
    present, extra = set[str](), list[str]()
    for name in adapter.modules:
        adapter.deadline.check("comparing target modules with the config")
        module = owner(name)
        if isinstance(wanted, str):
            is_targeted = patterns.targets(wanted, module)
        else:
            matched = wanted.intersection(patterns.suffixes(module))
            present |= matched
            is_targeted = bool(matched)
        if not is_targeted:
            extra.append(module)
    return present, extra
