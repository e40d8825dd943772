"""A report's proof, run again: the same texts through the same adapter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peftguard.adapters.adapter import Adapter
from peftguard.adapters.filenames import printable
from peftguard.errors import MalformedFile, SettingsError
from peftguard.padbench.bases import BASES
from peftguard.padbench.manifest import sha256_of
from peftguard.padbench.training.base import Precision
from peftguard.trigger.neutral import user_text
from peftguard.trigger.report import Example, TriggerReport
from peftguard.trigger.subject import Subject
from peftguard.trigger.template import checked

if TYPE_CHECKING:
    from peftguard.trigger.effect import Effects

_MOST_TOKENS = 4_096
"""Of an example in its prompt. No search makes longer ones, and attention grows with the square."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ReplayedExample(_Model):
    """One example of a proof, and the classes that the model gives now."""

    reported: Example
    label_before: int
    label_after: int

    @property
    def reproduced(self) -> bool:
        """Whether both are as reported."""
        told = self.reported.label_before, self.reported.label_after
        return (self.label_before, self.label_after) == told


class Replay(_Model):
    """All examples of a report's proof, run again."""

    adapter: str
    adapter_sha256: str
    base: str
    trigger: str
    target: int = Field(description="Class that texts are turned into.")
    labels: dict[int, str] = Field({}, description="Names of classes, as in the report.")
    examples: list[ReplayedExample] = Field(min_length=1)

    @property
    def reproduced(self) -> bool:
        """Whether every example turned out as reported."""
        return all(example.reproduced for example in self.examples)


def read_report(path: Path) -> TriggerReport:
    """A report from its JSON file.

    Raises:
        MalformedFile: it is none.
        InputError: as of `user_text`.
    """
    try:
        return TriggerReport.model_validate_json(user_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise MalformedFile(
            f"not a trigger report: {first['msg']}",
            file=printable(path.name),
            key=_shown(key) or None,
        ) from None


def what_to_run(
    report: TriggerReport, *, adapter: str | None = None, base: str | None = None
) -> tuple[str, str]:
    """Adapter and base: as given, else as the report names them, if they are on this machine.

    Whoever wrote the report must not choose what is downloaded.

    Raises:
        SettingsError: what is named is not there.
    """
    told = report.provenance
    if adapter is None and not os.path.exists(told.adapter):
        raise SettingsError(f"no adapter at {_shown(told.adapter)!r} here; give --adapter")
    if base is None and not _is_here(told.base):
        raise SettingsError(f"no base model {_shown(told.base)!r} here; give --base")
    return adapter or told.adapter, base or told.base


def _is_here(base: str) -> bool:
    """Whether a base is a folder, or comes with a package; other names stand for hub ids."""
    named = BASES.get(base)
    return os.path.isdir(base) if named is None else named.package is not None


def replay_report(report: TriggerReport, adapter: Adapter, base: str) -> Replay:
    """Run the model on every example of the proof, without and with the trigger.

    Args:
        report: with a proof.
        adapter: open; must be the very one that was reported on.
        base: a name, a folder or a hub id.

    Raises:
        SettingsError: there is nothing to replay, or the report is on another adapter.
        UnsupportedAdapter: the adapter cannot be run on this base.
    """
    proof = report.proof
    if proof is None or not proof.examples:
        raise SettingsError("the report has no example of a trigger, so there is nothing to replay")
    digest = _checked(report, adapter)
    subject = Subject(base, (), "the report", (), _precision(report))
    effects = _asked_again(report, subject, adapter)
    return Replay(
        adapter=adapter.source.target,
        adapter_sha256=digest,
        base=base,
        trigger=proof.trigger,
        target=proof.target,
        labels=report.labels,
        examples=[_again(effects, one) for one in proof.examples],
    )


def _asked_again(report: TriggerReport, subject: Subject, adapter: Adapter) -> Effects:
    """The model, asked as the report says; a causal one's answers must be tokens of it."""
    model, asked = subject.adapted(adapter), report.asked
    if model.causal != (asked is not None):
        kind = "a causal model" if model.causal else "a classifier"
        raise SettingsError(f"the base is {kind}, and the report is of another kind")
    if asked is not None:
        checked(asked.template)
        size = model.model.get_input_embeddings().weight.shape[0]
        if any(not 0 <= token < size for answer in asked.answers for token in answer):
            raise SettingsError("the report's answers are not tokens of this base model")
    return subject.effects(model, asked)


def _again(effects: Effects, reported: Example) -> ReplayedExample:
    longest = max(map(len, effects.model.encode([reported.before, reported.after])))
    if longest > _MOST_TOKENS:
        raise SettingsError(
            f"an example of the report is too long: {longest:,} tokens, at most {_MOST_TOKENS:,}"
        )
    # Both texts in one batch, as in the proof: its width decides how bf16 rounds.
    labels = effects.log_odds([reported.before, reported.after]).argmax(axis=1).tolist()
    return ReplayedExample(reported=reported, label_before=labels[0], label_after=labels[1])


def _checked(report: TriggerReport, adapter: Adapter) -> str:
    """Hash of the adapter's weights, which must be the reported one."""
    found, told = sha256_of(adapter.source.weights[0]), report.provenance.adapter_sha256
    if found != told:
        raise SettingsError(
            f"{printable(adapter.source.target)}: not the adapter of the report; "
            f"expected sha256 {_shown(told or 'none')}; found {found}"
        )
    return found


def _precision(report: TriggerReport) -> Precision:
    """The reported one: rounding may decide where an answer hangs in the balance."""
    told: Precision
    for told in get_args(Precision):
        if told == report.provenance.precision:
            return told
    raise SettingsError(f"no such precision: {_shown(report.provenance.precision)}")


def _shown(text: str, width: int = 120) -> str:
    """Whoever wrote the report chose this text."""
    return printable(text if len(text) <= width else f"{text[: width - 1]}…")
