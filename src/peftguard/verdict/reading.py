"""One pass over an adapter's modules: a profile of each, and what could not be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

from peftguard.adapters.adapter import Adapter
from peftguard.adapters.methods import why_unsupported
from peftguard.adapters.update import Update
from peftguard.errors import LimitExceeded, PeftGuardError
from peftguard.features.outliers import mark
from peftguard.features.profile import ModuleProfile
from peftguard.features.spectrum import profile
from peftguard.findings import Finding, found
from peftguard.limits import MIB, Deadline

_MULTIPLY_ADDS = 1e10
"""A second, in a decomposition, on the slowest machine worth planning for."""
_WORTH_THREADS = MIB // 2
"""Mean size of a module's factors from which a thread gives more than it costs."""


@dataclass(slots=True)
class Reading:
    """What one pass over the modules gave; `incomplete` holds clauses, as in `Evidence`."""

    profiles: list[ModuleProfile] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)


def code_of(error: Exception) -> str:
    """The finding code that an error is reported under."""
    if isinstance(error, OSError):
        return "file.not-found"
    return error.code if isinstance(error, PeftGuardError) else "error.internal"


def read_modules(adapter: Adapter, pool: Executor) -> Reading:
    """Profiles in file order; a module that cannot be read is a finding, not the end."""
    if not adapter.modules:
        nothing = found("integrity.no-update", "no tensor of this file is part of a weight update")
        return Reading([], [nothing], ["it holds no weight update"])
    if adapter.method is None:
        return _unsupported(adapter)
    reading = Reading()
    failures: dict[str, list[tuple[str, Exception]]] = {}
    for module, profiles in _started(adapter, pool):
        try:
            reading.profiles += profiles()
        except (PeftGuardError, OSError) as error:
            failures.setdefault(code_of(error), []).append((module, error))
    reading.profiles = mark(reading.profiles)
    for code, failed in failures.items():
        _note_failures(reading, code, failed, len(adapter.modules))
    return reading


def _started(
    adapter: Adapter, pool: Executor
) -> Iterator[tuple[str, Callable[[], list[ModuleProfile]]]]:
    """Each module and a call for its profiles: in the pool where the factors are worth a thread."""
    stored = (info.n_bytes for module in adapter.modules.values() for info in module.info.values())
    if sum(stored) < _WORTH_THREADS * len(adapter.modules):
        for module in adapter.modules:
            yield module, partial(_profiles_of, adapter, module)
        return
    futures = {module: pool.submit(_profiles_of, adapter, module) for module in adapter.modules}
    for module, future in futures.items():
        yield module, future.result


def _profiles_of(adapter: Adapter, module: str) -> list[ModuleProfile]:
    profiles = []
    for update in adapter.module_updates(module):
        _check_cost(update, adapter.deadline)
        profiles.append(profile(update))
    return profiles


def _check_cost(update: Update, deadline: Deadline) -> None:
    """A decomposition cannot be interrupted, so one that would outlast the clock is not begun."""
    deadline.check(f"reading {update.module}")
    inner, into, out = update.A.shape[0], update.A.shape[1], update.B.shape[0]
    cost = float(into + out) * min(inner, into) ** 2
    if update.left is not None:
        cost += float(max(update.left.shape)) * min(update.left.shape) ** 2
    seconds = cost / _MULTIPLY_ADDS
    if seconds > deadline.remaining:
        raise LimitExceeded(
            "the factors are too large to decompose in time",
            key=update.module,
            expected=f"at most {deadline.seconds:g} s for the adapter",
            found=f"about {seconds:.0f} s for this module",
        )


def _unsupported(adapter: Adapter) -> Reading:
    kinds = sorted({part for module in adapter.modules.values() for part in module.info})
    message = (
        f"{adapter.peft_type}: {why_unsupported(adapter.peft_type)}; "
        f"{len(adapter.modules)} modules with {', '.join(kinds[:8])}"
    )
    return Reading([], [found("method.unsupported", message)], [message])


def _note_failures(
    reading: Reading, code: str, failed: list[tuple[str, Exception]], total: int
) -> None:
    """One finding for all modules that failed alike; the first stands for the rest."""
    module, error = failed[0]
    message = str(error) if len(failed) == 1 else f"{error} (and {len(failed) - 1} more modules)"
    reading.findings.append(found(code, message, module=module))
    reading.incomplete.append(f"{len(failed)} of {total} modules could not be read: {error}")
