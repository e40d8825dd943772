"""Opening files under the default limits, closed when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from peftguard.adapters.containers import open_container
from peftguard.adapters.containers.base import Container
from peftguard.errors import PeftGuardError
from peftguard.limits import Deadline, Limits

Open = Callable[..., Container]


@pytest.fixture
def attempt() -> Callable[[Path], Container | PeftGuardError]:
    """The container of a file, or the error that opening it raises; anything else is a bug."""
    return _attempt


def _attempt(path: Path) -> Container | PeftGuardError:
    try:
        return open_container((path,), Limits(), Deadline(60))
    except PeftGuardError as error:
        return error


@pytest.fixture
def opened() -> Iterator[Open]:
    """`opened(path, ...)`: the container of a file, or of shards."""
    containers: list[Container] = []

    def run(*paths: Path, limits: Limits | None = None) -> Container:
        containers.append(open_container(paths, limits or Limits(), Deadline(120)))
        return containers[-1]

    yield run
    for container in containers:
        container.close()
