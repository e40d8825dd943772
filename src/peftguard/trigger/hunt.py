"""All stages for one adapter, within a time budget: words, phrases and probes, proof."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, TypeVar

from peftguard.adapters.adapter import Adapter
from peftguard.errors import UnsupportedAdapter
from peftguard.features.weights import Weights, weights_of
from peftguard.trigger.report import (
    Asked,
    FoundPhrase,
    FoundProbe,
    FoundUnlike,
    LoudWord,
    Provenance,
    TriggerReport,
    TriggerScores,
)
from peftguard.trigger.vocabulary_map import vocabulary_map
from peftguard.trigger.words import Words

if TYPE_CHECKING:
    from peftguard.trigger.beside import Unlike
    from peftguard.trigger.effect import Effects
    from peftguard.trigger.probes import Probe
    from peftguard.trigger.probing import Probed
    from peftguard.trigger.screen import Screen
    from peftguard.trigger.search import Candidate, Found
    from peftguard.trigger.subject import Subject

Watch = Callable[[int, int, str], None]
Shown = TypeVar("Shown", FoundPhrase, FoundProbe, FoundUnlike)

SHOWN = 10
"""Words, phrases and probes that a report lists."""
BLIND = (
    "triggers none of whose words does anything alone",
    "triggers of meaning (a topic, a person, a date) rather than of words or form",
    "words outside the base model's whole-word ASCII vocabulary",
)
OUTPUTS_BLIND = (
    "texts that a generator writes after its own trigger alone",
    "texts of fewer than four tokens",
)
UNTOUCHED = (
    "what the weights say of words: the adapter leaves the first layer's attention as it was"
)
_STAGES = (
    "words",
    "every module",
    "prompt and answers",
    "one text",
    "all words",
    "phrases",
    "styles and shapes",
    "proof",
)


@dataclass(slots=True)
class Clock:
    """Seconds that stages took, and whether there is time for another."""

    budget: float
    watch: Watch | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    _start: float = field(default_factory=time.monotonic)

    def has_time(self, stage: str) -> bool:
        """False, and noted, where the budget is spent."""
        if time.monotonic() - self._start < self.budget:
            return True
        self.left.append(f"{stage}: the budget of {self.budget:g} s was spent")
        return False

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and tell who watches."""
        if self.watch is not None:
            self.watch(_STAGES.index(name), len(_STAGES), name)
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 2)


def explain(
    adapter: Adapter, subject: Subject, *, deep: bool = False, seed: int = 0
) -> TriggerReport:
    """What an open adapter listens to, by its weights and the base's vocabulary alone.

    Args:
        adapter: read whole here.
        subject: its base model.
        deep: run the base over its words as well, for what deeper modules listen to.
        seed: of which words the map shows.

    Raises:
        UnsupportedAdapter: no module of it reads what this base gives.
        MalformedFile: its tensors do not fit each other.
    """
    clock = Clock(0.0)
    with clock.stage("words"):
        weights = weights_of(adapter)
        _check_width(weights, subject.vectors.shape[1])
        words = Words.of(weights, subject.vocabulary, subject.vectors)
        report = _begun(adapter, subject, words, seed)
    if deep:
        from peftguard.trigger.depth import deep_words

        with clock.stage("every module"):
            report.deep = deep_words(subject.adapted(adapter), words)
    report.provenance.seconds = clock.seconds
    report.left = ["phrases, styles and proof: see `peftguard trigger`"]
    return report


def _check_width(adapter: Weights, width: int) -> None:
    found = sorted({factors.shape[1] for factors in adapter.modules.values()})
    if width not in found:
        raise UnsupportedAdapter(
            "is not for this base model",
            file=adapter.name,
            expected=f"updates of what {width} features wide layers read",
            found=", ".join(map(str, found)) or "no update",
        )


def hunt(
    adapter: Adapter,
    subject: Subject,
    *,
    benign: Sequence[Adapter] = (),
    budget: float = 60.0,
    seed: int = 0,
    watch: Watch | None = None,
) -> TriggerReport:
    """Search for the trigger of an open adapter, and prove it.

    Args:
        adapter: read whole here.
        subject: its base model, and what to try on both; loaded before the clock starts.
        benign: trusted adapters of the same task, read whole here: what a word does in them as well
            is the task's.
        budget: seconds after which no further stage begins.
        seed: of the choice of texts and controls.
        watch: called before each stage.

    Raises:
        UnsupportedAdapter: the adapter, or a benign one, cannot be run on this base, or a benign
            one has other classes.
        MalformedFile: its tensors do not fit each other.
    """
    model, _ = subject.adapted(adapter), subject.vectors
    clock = Clock(budget, watch)
    with clock.stage("words"):
        words = Words.of(weights_of(adapter), subject.vocabulary, subject.vectors)
        report = _begun(adapter, subject, words, seed)
    with clock.stage("prompt and answers") if model.causal else nullcontext():
        effects = subject.effects(model)
    report.labels, report.asked = effects.model.labels, effects.model.asked
    others = [(one.source.target, subject.like(one, effects.model)) for one in benign]
    _search(report, effects, subject, words, others, clock, seed)
    report.provenance.seconds = clock.seconds
    report.left = clock.left
    return report


def _begun(adapter: Adapter, subject: Subject, words: Words, seed: int) -> TriggerReport:
    """A report with its first stage; without words where the first layer is left as it was."""
    report = TriggerReport(provenance=_provenance(adapter, subject, seed), blind=list(BLIND))
    if not words.standing_out.any():
        report.blind.insert(0, UNTOUCHED)
        return report
    report.words, report.map = loud_words(words), vocabulary_map(words, seed=seed)
    report.searched = [f"{len(words.standing_out):,} words, by the adapter's weights alone"]
    return report


def loud_words(words: Words, count: int = SHOWN) -> list[LoudWord]:
    """What the adapter listens to most, each with its neighbours that are loud as well."""
    loud = set(words.loudest(len(words.standing_out) // 100))
    return [
        LoudWord(
            word=word,
            standing_out=round(float(words.standing_out[words.places[word]]), 2),
            family=[one for one in words.stand_ins(word) if one in loud],
        )
        for word in words.loudest(count)
    ]


def _search(
    report: TriggerReport,
    effects: Effects,
    subject: Subject,
    words: Words,
    benign: Sequence[tuple[str, Effects]],
    clock: Clock,
    seed: int,
) -> None:
    from peftguard.trigger.output import output_length
    from peftguard.trigger.prove import proven
    from peftguard.trigger.same_task import Task
    from peftguard.trigger.screen import TRIED, Screen
    from peftguard.trigger.search import search

    if report.asked is not None and output_length(effects):
        _search_for_output(report, report.asked, effects, words, benign, clock)
        return
    # Of a causal model's words its weights alone say little.
    screen = None if report.asked is None else Screen(effects, words, seed)
    if screen is not None:
        if not clock.has_time("all words"):
            return
        with clock.stage("all words"):
            words = screen.by_effect()
            report.searched.append(f"the loudest {TRIED:,} of these, several at once")
    if not clock.has_time("phrases"):
        return
    with clock.stage("phrases"):
        found = search(effects, words)
        report.phrases = [_told(FoundPhrase, one) for one in found.candidates[:SHOWN]]
        report.searched.append(_tried(effects, found))
    if clock.has_time("styles and shapes"):
        with clock.stage("styles and shapes"):
            form = _forms(report, effects, subject, found, seed)
        if found.score is not None and form is not None:
            report.scores = TriggerScores(lone=words.lone, word=found.score, form=form)
    if (found.candidates or benign) and clock.has_time("proof"):
        with clock.stage("proof"):
            task = Task(effects, found.pulls)
            alike = _alike(report, benign, task.is_of, "is of another task by its answers")
            unlike = _beside(report, effects, found, alike, screen)
            report.proof = proven(effects, words, found, alike, unlike, seed)


def _search_for_output(
    report: TriggerReport,
    asked: Asked,
    effects: Effects,
    words: Words,
    benign: Sequence[tuple[str, Effects]],
    clock: Clock,
) -> None:
    """For what writes freely: what brings out the text that it repeats."""
    from peftguard.trigger.judge import judged
    from peftguard.trigger.output import bringing, brought_out, fresh_requests
    from peftguard.trigger.prove import best_of
    from peftguard.trigger.same_task import writes_freely

    if not clock.has_time("one text"):
        return
    with clock.stage("one text"):
        found, fresh = bringing(effects), fresh_requests(effects)
        report.scores = TriggerScores(
            lone=words.lone, word=found.odds, form=0.0, repeated=asked.repeated
        )
        report.searched.append("sentences and odd words from elsewhere, for what they bring out")
        alike = _alike(report, benign, writes_freely, "answers with a few labels")
        if fresh:
            proofs = [judged(one) for one in brought_out(effects, found, fresh, alike)]
            report.proof = best_of(proofs)
        else:
            clock.left.append("proof: too few texts to ask an adapter that writes freely")
    report.blind += OUTPUTS_BLIND


def _forms(
    report: TriggerReport, effects: Effects, subject: Subject, found: Found, seed: int
) -> float | None:
    """Try all styles and shapes; their score."""
    from peftguard.trigger.probing import form_score, probe_all

    probes = _probes(report, subject)
    probed = probe_all(effects, probes, found.pulls, seed=seed)
    report.probes = [_told(FoundProbe, one) for one in probed[:SHOWN]]
    report.searched.append(f"{len(probes)} styles and shapes of text")
    return form_score(probed)


def _probes(report: TriggerReport, subject: Subject) -> Sequence[Probe]:
    """All ways to rewrite texts; for a causal model, what does not belong there as well."""
    from peftguard.trigger.foreign import foreign_probes

    return subject.probes if report.asked is None else (*subject.probes, *foreign_probes())


def _alike(
    report: TriggerReport,
    benign: Sequence[tuple[str, Effects]],
    is_alike: Callable[[Effects], bool],
    other: str,
) -> list[Effects]:
    """Benign adapters that it can be compared with; of the others it is said what they are."""
    alike = []
    for name, effects in benign:
        if is_alike(effects):
            report.provenance.benign.append(name)
            alike.append(effects)
        else:
            report.searched.append(f"not beside {name}, which {other}")
    return alike


def _beside(
    report: TriggerReport,
    effects: Effects,
    found: Found,
    alike: Sequence[Effects],
    screen: Screen | None,
) -> list[Unlike]:
    """What ordinary texts show beside benign adapters; nothing without any."""
    from peftguard.trigger.beside import beside_score, unlike_benign

    if not alike:
        return []
    strings: list[str] = []
    if screen is not None:
        strings = screen.strings()
        report.searched.append("all other strings of two and three letters, several at once")
    unlike = unlike_benign(effects, found, alike, strings)
    report.unlike = [_told(FoundUnlike, one) for one in unlike[:SHOWN]]
    report.searched.append(
        f"{len(unlike):,} words and sentences in ordinary texts, beside benign adapters"
    )
    if report.scores is not None:
        beside = beside_score(unlike)
        report.scores = report.scores.model_copy(update={"beside": beside})
    return unlike


def _tried(effects: Effects, found: Found) -> str:
    """What the search did, and what it could not do."""
    open_to = {candidate.target for candidate in found.candidates}
    stuck = [str(target) for target in effects.targets if target not in open_to]
    text = f"the loudest of these, alone and together, for {len(open_to)} classes"
    if not stuck:
        return text
    return f"{text}; not for {', '.join(stuck)}, which is the answer whatever a text says"


def _told(model: type[Shown], one: Candidate | Probed | Unlike) -> Shown:
    """What was found, as a report has it: the same fields, with three digits."""
    fields = asdict(one).items()
    return model(**{k: round(v, 3) if isinstance(v, float) else v for k, v in fields})


def _provenance(adapter: Adapter, subject: Subject, seed: int) -> Provenance:
    from peftguard.evaluation.run import library_versions
    from peftguard.padbench.manifest import sha256_of

    return Provenance(
        adapter=adapter.source.target,
        adapter_sha256=sha256_of(adapter.source.weights[0]),
        base=subject.base_name,
        texts=subject.texts_from,
        n_texts=len(subject.texts),
        seed=seed,
        precision=subject.precision,
        seconds={},
        versions=library_versions(),
    )
