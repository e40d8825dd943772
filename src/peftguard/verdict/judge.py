"""One adapter from files to result: open, profile, check, score, decide."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from peftguard.adapters.adapter import open_adapter
from peftguard.adapters.source import Source
from peftguard.detectors.base import Detector
from peftguard.errors import InputError, PeftGuardError
from peftguard.findings import Finding, found
from peftguard.limits import Deadline
from peftguard.results import FileDigest, Origin, Result
from peftguard.settings import ScanSettings
from peftguard.verdict.checks import (
    check_files,
    check_imports,
    check_integrity,
    check_payload,
    check_weights,
    incomplete_because,
)
from peftguard.verdict.decide import Evidence, decide
from peftguard.verdict.digest import digest_files, joint_hash
from peftguard.verdict.reading import code_of, read_modules
from peftguard.verdict.summary import summarise
from peftguard.verdict.trigger_search import Searched, search_for_trigger


def judge(source: Source, settings: ScanSettings, detectors: Sequence[Detector]) -> Result:
    """Scan one adapter. Never raises: what goes wrong is in the result, which is then `unknown`."""
    start = time.perf_counter()
    try:
        result = _judge(source, settings, detectors)
    except Exception as error:
        result = unreadable(source.target, error, source.findings)
    result.timing_s = round(time.perf_counter() - start, 4)
    return result


def unreadable(target: str, error: Exception, findings: Sequence[Finding] = ()) -> Result:
    """The result for an unreadable input: `unknown`, or `backdoored` if it runs code."""
    noted = [*findings, problem := _as_finding(error)]
    return Result(
        target=target,
        sha256=None,
        adapter=None,
        verdict=decide(
            Evidence(noted, [f"the adapter could not be read: {problem.message}"]), None, [], 0.5
        ),
        findings=_ordered(noted),
        timing_s=0.0,
    )


def _judge(source: Source, settings: ScanSettings, detectors: Sequence[Detector]) -> Result:
    searched = search_for_trigger(source, settings)
    if searched.trigger is not None:
        from peftguard.detectors.informed import informed

        detectors = informed(detectors, searched.trigger)
    deadline = Deadline(settings.limits.max_seconds)
    with ThreadPoolExecutor(max_workers=_threads(settings.jobs)) as pool:
        paths = [*source.weights, *([source.config] if source.config else [])]
        digests = pool.submit(digest_files, source, paths, deadline)
        result = _read(source, settings, detectors, searched, deadline, pool)
        return _with_digests(result, source, digests)


def _read(
    source: Source,
    settings: ScanSettings,
    detectors: Sequence[Detector],
    searched: Searched,
    deadline: Deadline,
    pool: ThreadPoolExecutor,
) -> Result:
    beside = list(check_files(source, settings.limits, deadline))
    try:
        adapter = open_adapter(
            source, limits=settings.limits, deadline=deadline, initial=settings.initial_adapter
        )
    except (PeftGuardError, OSError) as error:
        return unreadable(source.target, error, [*source.findings, *beside])
    with adapter:
        # Headers first: a slow read must not take the time that comparing them needs.
        agreement = check_integrity(adapter)
        reading = read_modules(adapter, pool)
        findings = [
            *adapter.findings,
            *beside,
            *check_imports(adapter.config),
            *agreement.findings,
            *check_payload(adapter),
            *reading.findings,
            *check_weights(reading.profiles),
            *searched.findings,
        ]
        incomplete = [
            *adapter.incomplete,
            *reading.incomplete,
            *incomplete_because(adapter),
            *agreement.incomplete,
        ]
        evidence = Evidence(findings, incomplete, searched.notes)
        verdict = decide(evidence, adapter, detectors, settings.fpr)
        return Result(
            target=source.target,
            sha256=None,
            adapter=summarise(adapter, reading.profiles),
            verdict=verdict,
            findings=_ordered(findings),
            timing_s=0.0,
            modules=reading.profiles,
            trigger=searched.trigger,
        )


def _with_digests(result: Result, source: Source, digests: Future[list[FileDigest]]) -> Result:
    """Add hashes and origin; a file that cannot be hashed was reported as unreadable already."""
    with suppress(OSError, InputError):
        result.files = digests.result()
        result.sha256 = joint_hash(result.files[: len(source.weights)])
    if source.origin is not None:
        result.origin = Origin(repo=source.origin.repo, revision=source.origin.revision)
    return result


def _as_finding(error: Exception) -> Finding:
    code = code_of(error)
    if code == "error.internal":
        return found(code, f"{type(error).__name__}: {str(error)[:300]}")
    file = error.file if isinstance(error, InputError) else None
    return found(code, str(error), file=file)


def _ordered(findings: Sequence[Finding]) -> list[Finding]:
    """Worst first, otherwise as found; exact repeats once."""
    unique = dict.fromkeys(findings)
    return sorted(unique, key=lambda finding: -finding.severity.rank)


def _threads(jobs: int) -> int:
    """At least two, so that hashing overlaps with linear algebra."""
    return max(2, (os.cpu_count() or 1) // jobs)
