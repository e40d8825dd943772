"""How a plan is built; which adapters there are does not depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
    members: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        8, description="Adapters trained at once; `auto`: on a GPU as many as fit, else 8."
    )
    measured_rows: int = Field(
        400, ge=1, description="Most held-out rows of each kind to measure an adapter on."
    )

    @property
    def fits_device(self) -> bool:
        """Whether fleets are sized by what is free on a GPU."""
        return self.members == "auto" and self.device.startswith("cuda")
