"""Many adapters: found, scanned one by one or several at a time, reported in input order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial

from peftguard import __version__
from peftguard.adapters.source import Source
from peftguard.adapters.sources import find_sources
from peftguard.detectors.base import Detector
from peftguard.detectors.registry import load_detectors
from peftguard.errors import InputError, PeftGuardError
from peftguard.results import Result, Scan, Tool
from peftguard.settings import ScanSettings
from peftguard.verdict.judge import judge, unreadable
from peftguard.verdict.trigger_search import trusted

Target = Source | Result
"""A place in the output: an adapter still to be scanned, or an input that is already a failure."""

Watch = Callable[[int, int, str], None]
"""Called with (done, total, target) before each adapter and once at the end."""


def scan_targets(
    targets: Sequence[str], settings: ScanSettings, watch: Watch | None = None
) -> Scan:
    """Scan every adapter under `targets`; one result an adapter, in input order.

    Raises:
        SettingsError: a detector that was asked for is not installed, or there is no such base.
        MissingExtra: a base was given, and what runs it is not installed.
        InputError: the base's config is broken, or a benign adapter cannot be read.
    """
    settings = _with_base(settings)
    detectors = load_detectors(settings.detectors, searched=settings.base is not None)
    places = [place for target in targets for place in _locate(target, settings)]
    run = _in_processes if settings.jobs > 1 and len(places) > 1 else _one_by_one
    results = _watched(places, run(places, settings, detectors), watch)
    return Scan(tool=Tool(version=__version__), results=results)


def read_targets(
    targets: Sequence[str], settings: ScanSettings, watch: Watch | None = None
) -> list[Result]:
    """What is in every adapter under `targets`: as `scan_targets`, but nobody is asked."""
    settings = settings.model_copy(update={"base": None})
    places = [place for target in targets for place in _locate(target, settings)]
    return _watched(places, _one_by_one(places, settings, []), watch)


def _with_base(settings: ScanSettings) -> ScanSettings:
    """The settings with their base model and benign adapters, if any, known to be there."""
    if settings.base is None:
        return settings
    from peftguard.trigger.ready import check_ready, on_this_machine

    base = on_this_machine(settings.base) if settings.offline else settings.base
    check_ready(base)
    for name in settings.benign:
        trusted(name, settings, settings.limits).close()
    return settings.model_copy(update={"base": base})


def _watched(
    places: Sequence[Target], results: Iterator[Result], watch: Watch | None
) -> list[Result]:
    """All results, with `watch` called before each place and at the end."""
    done: list[Result] = []
    for place in places:
        if watch is not None:
            watch(len(done), len(places), place.target)
        done.append(next(results))
    if watch is not None:
        watch(len(done), len(places), "")
    return done


def _locate(target: str, settings: ScanSettings) -> Iterator[Target]:
    """Sources of one target; what could not be found or walked is a result at its place."""
    try:
        yield from find_sources(target, limits=settings.limits, offline=settings.offline)
    except (PeftGuardError, OSError) as error:
        yield unreadable(target, error)


def scan_one(place: Target, settings: ScanSettings, detectors: Sequence[Detector]) -> Result:
    """One place's result, from the cache if it is allowed and there."""
    if isinstance(place, Result):
        return place
    if not settings.cache:
        return judge(place, settings, detectors)
    from peftguard.verdict.cache import ResultCache

    cache = ResultCache(settings, detectors)
    result = cache.get(place)
    if result is None:
        result = judge(place, settings, detectors)
        cache.put(place, result)
    return result


def _one_by_one(
    places: Iterable[Target], settings: ScanSettings, detectors: Sequence[Detector]
) -> Iterator[Result]:
    for place in places:
        yield scan_one(place, settings, detectors)


def _in_processes(
    places: Sequence[Target], settings: ScanSettings, detectors: Sequence[Detector]
) -> Iterator[Result]:
    """Results in order from `jobs` processes; an adapter that kills its process is alone lost."""
    context = multiprocessing.get_context("spawn")
    task = partial(_scan_in_worker, settings=settings)
    start = partial(_share_cores, settings)
    with ProcessPoolExecutor(settings.jobs, mp_context=context, initializer=start) as pool:
        futures = [pool.submit(task, place) for place in places]
        for place, future in zip(places, futures, strict=True):
            yield _result_or_retry(place, future, settings)


def _share_cores(settings: ScanSettings) -> None:
    """Torch takes every core for itself: where it will run, a worker gets its part of them."""
    if settings.base is not None:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // settings.jobs))


def _scan_in_worker(place: Target, settings: ScanSettings) -> Result:
    names = None if settings.detectors is None else tuple(settings.detectors)
    detectors = _detectors_of_this_process(names, settings.base is not None)
    return scan_one(place, settings, detectors)


@cache
def _detectors_of_this_process(names: tuple[str, ...] | None, searched: bool) -> list[Detector]:
    """Loaded for a worker's first adapter and kept for the others."""
    return load_detectors(None if names is None else list(names), searched=searched)


def _result_or_retry(place: Target, future: Future[Result], settings: ScanSettings) -> Result:
    """A broken pool fails every adapter that was waiting, so each is tried once more by itself."""
    try:
        return future.result()
    except BrokenProcessPool:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            try:
                return pool.submit(_scan_in_worker, place, settings).result()
            except BrokenProcessPool:
                error = InputError("its scan was killed", file=place.target, code="error.internal")
                return unreadable(place.target, error)
