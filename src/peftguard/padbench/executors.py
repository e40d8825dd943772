"""Where fleets are trained: in this process, or on a Ray cluster that shares the folder."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from peftguard.errors import MissingExtra, SettingsError
from peftguard.padbench.build import Job, Run, run_job
from peftguard.padbench.choices import Executor

_RETRIES = 5


def executor(
    name: Executor, *, processes: int = 1, address: str | None = None, cpus: float = 1
) -> Run:
    """How to run jobs.

    Args:
        name: which executor.
        processes: of the local one; each has its share of the cores.
        address: of a running Ray cluster, `auto` for the one of this machine; None starts one.
        cpus: cores that one job takes on a Ray cluster.
    """
    if name is Executor.LOCAL:
        return _here if processes == 1 else lambda jobs: _in_processes(jobs, processes)
    return lambda jobs: _on_ray(jobs, address, cpus)


def _here(jobs: Sequence[Job]) -> Iterator[list[str]]:
    """One job after another: torch uses every core by itself."""
    for job in jobs:
        yield run_job(job)


def _in_processes(jobs: Sequence[Job], processes: int) -> Iterator[list[str]]:
    """Jobs as they end. On a CPU, a process a core gets more out of it than threads do.

    Raises:
        SettingsError: a process died; the adapters it has finished are kept.
    """
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // processes)
    with ProcessPoolExecutor(processes, context, _use_threads, (threads,)) as pool:
        futures = [pool.submit(run_job, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise SettingsError("a process died, perhaps for memory; run the build again") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _use_threads(count: int) -> None:
    """Begin a worker: its share of the cores, and no life after its parent's."""
    from peftguard.padbench.training.memory import bound_caches

    bound_caches()
    import torch

    torch.set_num_threads(count)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def resources(jobs: Sequence[Job], cpus: float) -> dict[str, float]:
    """What a job asks of Ray, which hides the GPUs from tasks that ask for none."""
    needs_gpu = any(job.options.device.startswith("cuda") for job in jobs)
    return {"num_cpus": cpus, "num_gpus": 1 if needs_gpu else 0}


def _on_ray(jobs: Sequence[Job], address: str | None, cpus: float) -> Iterator[list[str]]:
    """Jobs as they end; a worker that dies is replaced and its job begun again, since jobs repeat.

    Raises:
        MissingExtra: Ray is not installed.
        SettingsError: no cluster answers at the address.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtra("building on a cluster", "ray") from None
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False)
        except ConnectionError as error:
            raise SettingsError(f"no Ray cluster at {address}: {error}") from None
    task = ray.remote(max_retries=_RETRIES, **resources(jobs, cpus))(run_job)
    waiting = [task.remote(job) for job in jobs]
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=1)
        yield ray.get(done[0])
