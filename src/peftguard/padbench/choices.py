"""Choices of a build, apart from what they import."""

from __future__ import annotations

from enum import StrEnum


class Executor(StrEnum):
    """Where fleets are trained."""

    LOCAL = "local"
    RAY = "ray"


class Precision(StrEnum):
    """Of the frozen base; adapters are trained in float32 in any case."""

    FP32 = "fp32"
    BF16 = "bf16"
