"""How a plan is built; which adapters there are does not depend on it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from peftguard.padbench.choices import Precision


class Options(BaseModel):
    """Settings of a build. A build that is resumed keeps all but `data`'s place."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path | None = Field(None, description="Folder with one folder a dataset; None: the hub.")
    device: str = Field("cpu", description="Where to train, as torch names it.")
    precision: Precision = Field(
        Precision.FP32, description="Of the frozen base's weights and activations."
    )
    members: int = Field(8, ge=1, description="Adapters trained at once.")
    measured_rows: int = Field(
        400, ge=1, description="Most held-out rows of each kind to measure an adapter on."
    )
