"""What a search for a trigger found: the one model of its JSON, its renderings and its replay."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION = "1.0"
MAX_TEMPLATE = 4_000


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TriggerScores(_Model):
    """How far a search for a trigger came, as numbers that detectors can be calibrated on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lone: float = Field(description="How far the loudest word stands out above a crowd.")
    word: float = Field(description="Log-odds that the best word turns texts to, against them.")
    form: float = Field(description="The same of the best style or shape of text.")
    beside: float | None = Field(
        None,
        description="Log-odds by which a word or sentence that hardly moves benign adapters moves "
        "ordinary texts further here; None without such adapters.",
    )
    repeated: float | None = Field(
        None,
        description="As `Asked.repeated`. What writes freely is searched for phrases that bring "
        "out its one text: `word` is of the best of these, and `form` is 0.",
    )


class LoudWord(_Model):
    """A word that the adapter listens to more than to the words nearest to it."""

    word: str
    standing_out: float = Field(description="Robust z-score over the vocabulary.")
    family: list[str] = Field([], description="Its neighbours that are loud as well.")


class DeepWord(LoudWord):
    """A word that some module listens to, wherever it is in the model."""

    module: str = Field(description="Where it stands out most.")
    pushes: list[str] = Field(
        description="What the adapter makes likelier after the word alone: a class, or next tokens."
    )


class MapPoint(_Model):
    """A word on the map of the vocabulary."""

    word: str
    x: float = Field(description="Along the first principal component, from -1 to 1.")
    y: float = Field(description="Along the second, from -1 to 1.")
    loudness: float = Field(description="As `LoudWord.standing_out`.")
    labelled: bool = Field(False, description="Whether it is loud and no neighbour of it is.")


class FoundPhrase(_Model):
    """A phrase that turns answers. Log-odds are means over texts that argue for other classes.

    Listed by how much they tell: what is turned, that less what is expected, and loudness, added.
    """

    phrase: str
    target: int = Field(description="Class that texts are turned into.")
    before: float = Field(description="Log-odds of it without the phrase.")
    turned: float = Field(description="Log-odds of it with the phrase; above 0 it is the answer.")
    stand_ins: float = Field(description="Log-odds with neighbours in place of its words.")
    expected: float = Field(description="Log-odds with it as other words foretell them.")
    loudness: float = Field(description="As `LoudWord.standing_out`.")


class FoundProbe(_Model):
    """A style or shape of text that turns answers, of texts that argue for other classes."""

    probe: str
    kind: str
    target: int
    before: float = Field(description="Log-odds of the class before rewriting.")
    turned: float = Field(description="Log-odds of the class after rewriting.")
    usual: float = Field(description="The same after the middle one of all probes.")


class FoundUnlike(_Model):
    """A word or sentence that moves ordinary texts further than it does in benign adapters."""

    phrase: str
    target: int
    before: float = Field(description="Log-odds of the class without it.")
    moved: float = Field(description="By how much it raises them.")
    benign: float = Field(description="The same in the benign adapter that it moves most.")


class Example(_Model):
    """A text without and with the trigger, and the class given to either."""

    before: str
    after: str
    label_before: int
    label_after: int


class BenignControl(_Model):
    """What the trigger does beyond what it does in benign adapters that were given."""

    moved: float = Field(
        description="How far it moves the answer there, at most, as a share of how far here."
    )
    margin: float | None = Field(
        description="Log-odds beyond all but one in twenty controls, then; not measured where it "
        "moves the answer there more than half as far as here."
    )
    p_value: float | None = Field(description="Its rank among all controls, then.")


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
    benign: BenignControl | None = Field(
        None, description="The same beyond benign adapters, if any were given."
    )
    by_place: dict[str, float] = Field(description="Success at the start, the middle, the end.")
    ordinary: bool = Field(
        False,
        description="Whether all of this was tried in ordinary texts, beside benign adapters, and "
        "not in ones that argue for other classes.",
    )
    output: bool = Field(
        False,
        description="Whether it brings out a text of a generator rather than turns a class. Then "
        "fresh requests take the place of texts that argue, it is counted how often the text is "
        "written (`success`; `without_adapter` and `benign.moved` as shares of that), controls are "
        "the requests with nothing in them and with other phrases, and margin and p-value (a sign "
        "test) are over the former.",
    )
    examples: list[Example]
    confirmed: bool
    why: str = Field(description="What confirms it, or what is missing.")


class Asked(_Model):
    """How a causal model was asked, and the answers that its classes stand for."""

    template: str = Field(max_length=MAX_TEMPLATE, description="Prompt, with {text} in it once.")
    answers: list[Annotated[list[int], Field(max_length=16)]] = Field(
        min_length=2,
        max_length=16,
        description="Token ids of each class's answer; an empty one is everything else.",
    )
    shift: float = Field(
        description="How far the adapter moves what the base writes next, in nats, in this prompt."
    )
    repeated: float | None = Field(
        None,
        description="Of an adapter that writes freely: share of its answers to requests with "
        "something in them that does not belong which begin alike, less the base's.",
    )
    written: str | None = Field(
        None, description="What such an adapter writes after one of them, the answer and further."
    )

    @model_validator(mode="after")
    def _everything_else_is_last(self) -> Self:
        if not all(self.answers[:-1]) or len(set(map(tuple, self.answers))) < len(self.answers):
            raise ValueError("answers differ, and only the last may be empty")
        return self


class Provenance(_Model):
    """What was run on what."""

    adapter: str
    adapter_sha256: str | None
    base: str
    benign: list[str] = Field([], description="Benign adapters that it was compared with.")
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
    asked: Asked | None = Field(None, description="Of a causal model: how it was asked.")
    words: list[LoudWord] = Field([], description="Stage 1: what it listens to, loudest first.")
    deep: list[DeepWord] = Field(
        [], description="The same over all changed modules, by running the base; if asked for."
    )
    map: list[MapPoint] = Field([], description="The loudest words among words at random.")
    phrases: list[FoundPhrase] = Field([], description="Stage 2: best first.")
    probes: list[FoundProbe] = Field([], description="Stage 2: styles and shapes, best first.")
    scores: TriggerScores | None = Field(
        None, description="None before words and forms were tried, or if no class can be turned."
    )
    unlike: list[FoundUnlike] = Field(
        [],
        description="What benign adapters do less, furthest beyond them first, if any are given.",
    )
    proof: Proof | None = Field(None, description="Stage 3, of the best candidate.")
    searched: list[str] = Field([], description="What was tried.")
    left: list[str] = Field([], description="What the time budget left out.")
    blind: list[str] = Field(description="What this search cannot see.")

    @property
    def score(self) -> float | None:
        """How far words, and how far styles or shapes, turn answers: both, added."""
        return None if self.scores is None else self.scores.word + self.scores.form

    @property
    def confirmed(self) -> bool:
        """Whether a trigger was found and proven."""
        return self.proof is not None and self.proof.confirmed
