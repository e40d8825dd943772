"""What was done to an adapter: the one model of `mitigation.json` and of what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from peftguard.reports.strict import strict_json
from peftguard.results import Label

FILE_NAME = "mitigation.json"
SCHEMA_VERSION = "1.0"
Use = Literal["yes", "no", "unknown"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Share(_Model):
    """So many of so many."""

    hits: int
    n: int

    @property
    def rate(self) -> float:
        """Their share; 0 of none."""
        return self.hits / self.n if self.n else 0.0


class Figures(_Model):
    """What an adapter does, as measured on texts that it was not cleaned with."""

    accuracy: Share | None = Field(None, description="Clean held-out rows answered right.")
    fires: Share | None = Field(
        None, description="Texts of other classes that the trigger turns into its target."
    )
    without: Share | None = Field(
        None, description="The same texts taken for the target without it: fires falls no lower."
    )


class Inputs(_Model):
    """What it was cleaned with."""

    base: str | None = None
    data: str | None = Field(None, description="Where the clean rows come from.")
    n_rows: int = Field(0, description="Clean rows that were trained on.")
    trigger: list[str] | None = Field(None, description="Phrases that fire the backdoor.")
    target: int | None = Field(None, description="Class that they turn texts into.")
    benign_sha256: str | None = Field(None, description="Weights of the benign adapter.")


class Rescan(_Model):
    """What a scan says of the cleaned adapter."""

    label: Label
    reasons: list[str]
    searched_on: str | None = Field(None, description="Base it was searched for a trigger on.")


class Mitigation(_Model):
    """One adapter cleaned by one method."""

    schema_version: str = SCHEMA_VERSION
    tool_version: str
    versions: dict[str, str]
    original: str = Field(description="As it was named; its files were not touched.")
    original_sha256: str
    sha256: str = Field(description="Of the cleaned weights.")
    method: str
    parameters: dict[str, float]
    seed: int
    inputs: Inputs
    dropped: list[str] = Field([], description="Keys of the config that would have imported code.")
    seconds: float = Field(description="Of the cleaning alone.")
    change: float = Field(description="|dW' - dW| / |dW| over all modules.")
    before: Figures | None = None
    after: Figures | None = None
    rescan: Rescan | None = None
    use: Use = Field("unknown", description="Whether it may be used.")
    why: list[str] = Field([], description="What that rests on.")

    def write(self, path: Path) -> None:
        """Write it as JSON. Raises OSError if the disk refuses."""
        path.write_text(strict_json(self.model_dump(mode="json"), indent=1) + "\n", "utf-8")


def read_record(path: Path) -> Mitigation | None:
    """A record that was written; None if it is not there, or was cut short."""
    try:
        return Mitigation.model_validate_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
