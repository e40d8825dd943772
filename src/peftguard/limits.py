"""How much of a stranger's adapter we are willing to read, and the clock that watches us do it."""

from __future__ import annotations

import time

from pydantic import BaseModel, ConfigDict, Field

from peftguard.errors import LimitExceeded

MIB = 1 << 20
GIB = 1 << 30


class Limits(BaseModel):
    """Bounds on one adapter. Reaching one makes the verdict `unknown` with the reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_file_bytes: int = Field(64 * GIB, gt=0, description="Largest adapter file, in bytes.")
    max_header_bytes: int = Field(
        16 * MIB, gt=0, description="Largest safetensors or GGUF header, in bytes."
    )
    max_config_bytes: int = Field(4 * MIB, gt=0, description="Largest JSON file, in bytes.")
    max_nesting: int = Field(64, gt=0, description="Deepest nesting of a JSON file.")
    max_tensors: int = Field(200_000, gt=0, description="Most tensors in one adapter.")
    max_name_length: int = Field(1024, gt=0, description="Longest tensor or file name, characters.")
    max_module_bytes: int = Field(
        2 * GIB, gt=0, description="Most memory for the factors of one module, in bytes."
    )
    max_files: int = Field(100_000, gt=0, description="Most files looked at in one folder tree.")
    max_depth: int = Field(16, gt=0, description="Deepest folder of a tree that is walked.")
    max_seconds: float = Field(300.0, gt=0, description="Wall time per adapter, in seconds.")
    sandbox_bytes: int = Field(
        8 * GIB,
        gt=0,
        description="Memory that loading a torch pickle may take in its child process, in bytes.",
    )

    def longer(self, seconds: float) -> Limits:
        """The same with more time, for what is done with an open adapter besides reading it."""
        return self.model_copy(update={"max_seconds": self.max_seconds + seconds})


class Deadline:
    """Raises `LimitExceeded` once `seconds` of wall time have passed since it was made."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._end - time.monotonic())

    def check(self, doing: str) -> None:
        """Raise `LimitExceeded` when time is up; `doing` tells the reader what was cut short."""
        if self.remaining == 0.0:
            raise LimitExceeded(
                f"ran out of time while {doing}",
                key="max_seconds",
                expected=f"at most {self.seconds:g} s",
            )
