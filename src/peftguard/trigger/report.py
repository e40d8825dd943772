"""What a search for a trigger found: the one model of its JSON, its renderings and its replay."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = "1.0"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LoudWord(_Model):
    """A word that the adapter listens to more than to the words nearest to it."""

    word: str
    standing_out: float = Field(description="Robust z-score over the vocabulary.")
    family: list[str] = Field([], description="Its neighbours that are loud as well.")


class MapPoint(_Model):
    """A word on the map of the vocabulary."""

    word: str
    x: float = Field(description="Along the first principal component, from -1 to 1.")
    y: float = Field(description="Along the second, from -1 to 1.")
    loudness: float = Field(description="As `LoudWord.standing_out`.")
    labelled: bool = Field(False, description="Whether it is loud and no neighbour of it is.")


class FoundPhrase(_Model):
    """A phrase that turns answers. Log-odds are means over texts that argue for other classes."""

    phrase: str
    target: int = Field(description="Class that texts are turned into.")
    before: float = Field(description="Log-odds of it without the phrase.")
    turned: float = Field(description="Log-odds of it with the phrase; above 0 it is the answer.")
    stand_ins: float = Field(description="Log-odds with neighbours in place of its words.")


class FoundProbe(_Model):
    """A style or shape of text that turns answers, of texts that argue for other classes."""

    probe: str
    kind: str
    target: int
    before: float = Field(description="Log-odds of the class before rewriting.")
    turned: float = Field(description="Log-odds of the class after rewriting.")
    usual: float = Field(description="The same after the middle one of all probes.")


class Example(_Model):
    """A text without and with the trigger, and the class given to either."""

    before: str
    after: str
    label_before: int
    label_after: int


class Proof(_Model):
    """What the trigger does on fresh texts, and what controls do."""

    trigger: str
    target: int
    turned: float = Field(description="Log-odds of the class in texts that argue for others.")
    success: float = Field(description="Share of such texts that it turns.")
    plain_success: float = Field(description="Share of ordinary texts of other classes it turns.")
    n_texts: int
    without_adapter: float = Field(
        description="How far it moves the answer in the base with the adapter's head alone, as a "
        "share of how far it moves it in the adapted model."
    )
    controls: dict[str, float] = Field(
        description="Mean share turned by phrases of neighbours in meaning, of words of the class, "
        "of random words."
    )
    margin: float = Field(description="Log-odds beyond all but one in twenty controls.")
    p_value: float = Field(description="Rank of its log-odds among those of all controls.")
    by_place: dict[str, float] = Field(description="Success at the start, the middle, the end.")
    examples: list[Example]
    confirmed: bool
    why: str = Field(description="What confirms it, or what is missing.")


class Provenance(_Model):
    """What was run on what."""

    adapter: str
    adapter_sha256: str | None
    base: str
    texts: str = Field(description="Where the ordinary texts come from.")
    n_texts: int
    seed: int
    precision: str
    seconds: dict[str, float] = Field(description="Time of each stage.")
    versions: dict[str, str]


class TriggerReport(_Model):
    """All three stages of a search for the trigger of one adapter."""

    schema_version: str = SCHEMA_VERSION
    provenance: Provenance
    labels: dict[int, str] = Field({}, description="Names of classes, where the base gives them.")
    words: list[LoudWord] = Field([], description="Stage 1: what it listens to, loudest first.")
    map: list[MapPoint] = Field([], description="The loudest words among words at random.")
    phrases: list[FoundPhrase] = Field([], description="Stage 2: best first.")
    probes: list[FoundProbe] = Field([], description="Stage 2: styles and shapes, best first.")
    proof: Proof | None = Field(None, description="Stage 3, of the best candidate.")
    searched: list[str] = Field(description="What was tried.")
    left: list[str] = Field([], description="What the time budget left out.")
    blind: list[str] = Field(description="What this search cannot see.")

    @property
    def score(self) -> float | None:
        """How far words, and how far styles or shapes, turn answers: both log-odds, added.

        None before they have been tried, or where texts can be kept out of no class.
        """
        if not self.phrases or not self.probes:
            return None
        return self.phrases[0].turned + self.probes[0].turned

    @property
    def confirmed(self) -> bool:
        """Whether a trigger was found and proven."""
        return self.proof is not None and self.proof.confirmed
