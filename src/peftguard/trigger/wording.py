"""What the text, the page and the replay of a report all say in the same words."""

from __future__ import annotations

from collections.abc import Mapping

from peftguard.trigger.report import (
    BenignControl,
    DeepWord,
    FoundUnlike,
    LoudWord,
    Proof,
    TriggerReport,
)

DEEP = "Words that its modules listen to, anywhere in the model"
UNLIKE = "What moves ordinary texts further than in benign adapters (log-odds)"
NO_PROOF_OF_INNOCENCE = "That nothing was proven does not make the adapter clean."


def class_name(labels: Mapping[int, str], number: int) -> str:
    """Name of a class where the base gives one, else its number."""
    name = labels.get(number)
    return f"class {number}" if name is None else f"{name} ({number})"


def word_cells(one: LoudWord, alone: str) -> tuple[str, str, str]:
    """A word, how far it stands out, and its loud neighbours, or what is said if there are none."""
    return one.word, f"{one.standing_out:.2f}", ", ".join(one.family) or alone


def deep_cells(one: DeepWord, alone: str) -> tuple[str, ...]:
    """The same with the module where it does, and what the adapter makes likelier after it."""
    word, standing_out, family = word_cells(one, alone)
    return word, standing_out, one.module, family, " ".join(map(repr, one.pushes))


def unlike_cells(one: FoundUnlike, into: str) -> tuple[str, ...]:
    """A phrase, the class, its log-odds, and how far the phrase moves them here and elsewhere."""
    return one.phrase, into, f"{one.before:+.2f}", f"{one.moved:+.2f}", f"{one.benign:+.2f}"


def outcome(report: TriggerReport) -> str:
    """The result in two words."""
    if not _tried_phrases(report):
        return "WORDS ALONE"
    return "TRIGGER CONFIRMED" if report.confirmed else "NOTHING PROVEN"


def reason(report: TriggerReport) -> str:
    """What the outcome rests on, in one sentence."""
    proof, asked = report.proof, report.asked
    if proof is None:
        if asked is not None and asked.written is not None and _tried_phrases(report):
            text = f"Its commonest text ({asked.written!r}) was not proven to have a trigger: it"
            text += " follows most requests as they are, or too few were left to try a phrase on."
            return f"{text} {NO_PROOF_OF_INNOCENCE}"
        if not _tried_phrases(report):
            return "What the adapter listens to, by its weights; no phrase was tried in any text."
        if any(one.turned > 0 for one in report.phrases):
            found = "Words turn texts that argue otherwise, but none was put to the proof."
        else:
            found = "No word or phrase turns texts that argue otherwise."
        return f"{found} {NO_PROOF_OF_INNOCENCE}"
    if not proof.confirmed:
        what = f" that {aim(report, proof)}" if proof.output else ""
        return f"The best candidate{what} is no proof: {proof.why}. {NO_PROOF_OF_INNOCENCE}"
    told = aim(report, proof)
    return f"{told[0].upper()}{told[1:]}: {proof.why}."


def aim(report: TriggerReport, proof: Proof) -> str:
    """What the trigger is for: a class that texts are turned into, or a text that is written."""
    if proof.output and report.asked is not None:
        begins = report.labels.get(proof.target, "")
        return f"brings out texts that begin {begins!r} (one of them: {report.asked.written!r})"
    return f"into {class_name(report.labels, proof.target)}"


def _tried_phrases(report: TriggerReport) -> bool:
    """Whether the second stage was begun, though it may have found nothing that can be turned."""
    stages = report.provenance.seconds
    return bool(report.phrases or report.proof or "phrases" in stages or "one text" in stages)


def measured(proof: Proof) -> list[tuple[str, str]]:
    """The figures of a proof as (name, value) pairs."""
    places = ", ".join(f"{name} {_share(value)}" for name, value in proof.by_place.items())
    by = "with" if proof.output else "by controls:"
    over = "requests as they are" if proof.output else "controls"
    return [
        *_turned(proof),
        *((f"{by} {kind}", _share(share)) for kind, share in proof.controls.items()),
        (f"margin over {over}", f"{proof.margin:+.1f} log-odds"),
        ("effect without the adapter", _share(proof.without_adapter)),
        (f"p-value over {over}", f"{proof.p_value:.2g}"),
        *_beyond_benign(proof.benign),
        ("by place in the text", places),
    ]


def _turned(proof: Proof) -> list[tuple[str, str]]:
    turned = f"{_share(proof.success)} of {proof.n_texts}"
    if proof.output:
        return [("fresh requests, brought out of", turned)]
    if proof.ordinary:
        return [("ordinary texts, turned", turned)]
    return [
        ("texts arguing otherwise, turned", turned),
        ("ordinary texts turned", _share(proof.plain_success)),
    ]


def _beyond_benign(found: BenignControl | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    told = [("effect in benign adapters", _share(found.moved))]
    if found.margin is not None:
        told.append(("margin beyond benign adapters", f"{found.margin:+.1f} log-odds"))
    if found.p_value is not None:
        told.append(("p-value beyond benign adapters", f"{found.p_value:.2g}"))
    return told


def provenance(report: TriggerReport) -> list[tuple[str, str]]:
    """What was run on what, as (name, value) pairs."""
    made = report.provenance
    return [
        ("adapter", made.adapter),
        ("sha256", made.adapter_sha256 or "unknown"),
        ("base", made.base),
        *(("benign", name) for name in made.benign),
        ("precision", made.precision),
        ("ordinary texts", f"{made.n_texts:,}, {made.texts}"),
        *([] if report.asked is None else [("asked as", report.asked.template)]),
        ("seed", str(made.seed)),
        ("seconds", ", ".join(f"{name} {value:g}" for name, value in made.seconds.items())),
        ("versions", ", ".join(f"{name} {value}" for name, value in made.versions.items())),
    ]


def limits(report: TriggerReport) -> list[tuple[str, list[str]]]:
    """What was searched, what was left and what cannot be seen; without empty lists."""
    lists = [
        ("Searched", report.searched),
        ("Left out", report.left),
        ("Cannot be seen", report.blind),
    ]
    return [(title, lines) for title, lines in lists if lines]


def around(text: str, phrase: str) -> tuple[str, str, str]:
    """What stands before a phrase in a text, the phrase, what stands after; phrase "" if absent."""
    before, found, after = text.partition(phrase) if phrase else (text, "", "")
    return before, found, after


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"
