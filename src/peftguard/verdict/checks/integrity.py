"""Does an adapter's config agree with its tensors? Nothing but headers is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from peftguard.adapters import patterns
from peftguard.adapters.adapter import Adapter
from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.methods.config_values import mapping, names, whole
from peftguard.adapters.methods.experts import parameter_names
from peftguard.adapters.methods.scaling import owner
from peftguard.adapters.modules import stored_rank
from peftguard.errors import InputError
from peftguard.findings import Finding, found
from peftguard.verdict.checks.files import listed
from peftguard.verdict.checks.selection import Selection


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
    if any(finding.code == "integrity.untargeted-module" for finding in agreement.findings):
        # What PEFT ignores may be there to be judged in place of what it loads.
        agreement.incomplete.append("its settings leave out modules that the file has updates for")
    if adapter.config.get("layer_replication"):
        agreement.incomplete.append("it repeats layers of the base model")
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
    selection = Selection.of(adapter.config)
    if adapter.format != "peft" or names(adapter.config, "target_parameters"):
        # The targets go by other names than the tensors; what is left out is still left out.
        selection = replace(selection, targets=frozenset())
    modules, left_out = set[str](), dict[str, list[str]]()
    for name in adapter.modules:
        adapter.deadline.check("comparing target modules with the config")
        modules.add(module := owner(name))
        if verb := selection.leaves_out(module):
            left_out.setdefault(verb, []).append(module)
    absent = selection.absent(modules) if modules else []
    if absent:
        yield found("integrity.target-missing", f"no tensors for {listed(absent)}")
    for verb, extra in left_out.items():
        message = f"the config {verb} {listed(extra)}: PEFT ignores their tensors"
        yield found("integrity.untargeted-module", message, module=extra[0])
