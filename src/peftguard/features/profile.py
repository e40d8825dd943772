"""Numbers that describe one module's update and depend on the update alone."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ModuleProfile(BaseModel):
    """Spectrum and shape of `scale * B @ A` for one module, computed from the factors.

    With singular values s_1 >= ... >= s_r of the update and p_i = s_i / sum(s): every figure is
    invariant under A -> M A, B -> B M^-1. A zero update has zeros and no ratios; a non-finite one
    has None throughout.
    """

    model_config = ConfigDict(extra="forbid")

    module: str
    layer: str | None = Field(description="Path up to the first index.")
    role: str = Field(description="What the module is within its layer.")
    shape: tuple[int, int] = Field(description="(out, in) of the update.")
    rank: int = Field(description="Inner dimension of the factors.")
    scale: float
    exactness: str
    sigma_1: float | None = Field(description="Largest singular value.")
    frobenius: float | None = Field(description="Frobenius norm.")
    energy_concentration: float | None = Field(description="s_1^2 / sum s_i^2.")
    spectral_entropy: float | None = Field(description="-sum p_i ln p_i, in nats.")
    effective_rank: float | None = Field(description="exp(spectral entropy) (Roy & Vetterli 2007).")
    stable_rank: float | None = Field(description="sum s_i^2 / s_1^2.")
    kurtosis: float | None = Field(
        description="Fourth standardised moment of the update's entries (3 for a Gaussian)."
    )
    kurtosis_is_exact: bool = Field(
        True, description="False where it was estimated from a fixed sample of rows (large rank)."
    )
    singular_values: list[float] = Field([], description="Largest 32, descending.")
    outlier_z: float | None = Field(
        None, description="Largest robust z among the figures, against modules of the same role."
    )
