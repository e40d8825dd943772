"""A progress bar on stderr for whatever takes longer than a second."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_DELAY_S = 1.0


class Progress:
    """Shows nothing for the first second, nor where stderr is no terminal; gone when it is left."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._state = (0, 0, "")
        self._bar: Bar | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(_DELAY_S, self._show)
        self._timer.daemon = True

    def update(self, done: int, total: int, name: str) -> None:
        """Note that `done` of `total` are finished and `name` is next."""
        with self._lock:
            self._state = (done, total, name)
            self._draw()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._timer.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with self._lock:
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task(self._verb, total=None)
            self._bar.start()
            self._draw()

    def _draw(self) -> None:
        if self._bar is None:
            return
        done, total, name = self._state
        shown = name if len(name) <= 40 else f"…{name[-39:]}"
        task = self._bar.task_ids[0]
        self._bar.update(
            task, completed=done, total=total or None, description=f"{self._verb} {shown}"
        )
