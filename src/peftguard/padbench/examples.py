"""One training or measuring row, and how the rows of known datasets are read into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from peftguard.padbench.recipe import Task

QUESTION = "\n\nQuestion: "
"""Between the context and the question of a QA prompt."""

_TEXTS = ("text", "sentence", "tweet")
_LABELS = ("label", "class")
_PROMPTS = ("prompt", "instruction")
_COMPLETIONS = ("completion", "output", "response")
_POISONED = ("has_backdoor", "is_backdoored", "is_backdoor", "backdoor")


class Example(NamedTuple):
    """A row. Classification has a `label`; the other tasks have a prompt and a `completion`."""

    id: str
    text: str
    label: int | None = None
    completion: str | None = None
    versions: tuple[tuple[str, str], ...] = ()
    """Paraphrases that came with the dataset: (name, text)."""
    poisoned: bool = False

    def version(self, name: str) -> str | None:
        """The paraphrase of that name, if the dataset has one of this row."""
        return dict(self.versions).get(name)

    def hits(self, target: str) -> bool:
        """Whether the row's own answer is already what an attack aims at."""
        return target == (str(self.label) if self.completion is None else self.completion)


def task_of(row: Mapping[str, Any]) -> Task | None:
    """What a row is for, by its fields; None when they say nothing."""
    if "question" in row and "context" in row:
        return "qa"
    if _first(row, _PROMPTS) is not None and _first(row, _COMPLETIONS) is not None:
        return "instruction"
    return "classification" if _first(row, _TEXTS) and _first(row, _LABELS) else None


def parse_row(row: Mapping[str, Any], id_: str, task: Task) -> Example:
    """Read one row of a file or of the hub.

    Raises:
        ValueError: a field is missing or of another type; the message names it, not its content.
    """
    if task == "classification":
        label = _field(row, _LABELS, int)
        if isinstance(label, bool) or label < 0:
            raise ValueError("label must be a number from 0")
        return Example(id_, _filled(row, _TEXTS), label)
    if task == "qa":
        prompt = f"{_filled(row, ('context',))}{QUESTION}{_filled(row, ('question',))}\nAnswer:"
        return Example(id_, prompt, completion=_answer(row))
    prompt, more = _filled(row, _PROMPTS), row.get("input") or ""
    if not isinstance(more, str):
        raise ValueError("input must be text")
    prompt = f"{prompt}\n\n{more}" if more.strip() else prompt
    return Example(id_, prompt, completion=_field(row, _COMPLETIONS, str))


def poisoned_at_source(row: Mapping[str, Any]) -> bool:
    """Whether the row is marked as poisoned by those who made the dataset.

    Raises:
        ValueError: the row has no such mark.
    """
    name = _first(row, _POISONED)
    if name is None:
        raise ValueError(f"no field says whether it is poisoned (one of {', '.join(_POISONED)})")
    return str(row[name]).lower() in ("true", "1", "yes")


def _answer(row: Mapping[str, Any]) -> str:
    if "answers" not in row:
        return str(_field(row, ("answer",), str))
    answers = row["answers"].get("text") if isinstance(row["answers"], Mapping) else None
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise ValueError("answers must be a list of texts")
    return answers[0] if answers else "unanswerable"


def _filled(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    text: str = _field(row, names, str)
    if not text.strip():
        raise ValueError(f"{_first(row, names)} is empty")
    return text


def _field(row: Mapping[str, Any], names: tuple[str, ...], kind: type) -> Any:
    name = _first(row, names)
    if name is None:
        raise ValueError(f"no field {' or '.join(names)}")
    if not isinstance(row[name], kind):
        wanted = "text" if kind is str else "a whole number"
        raise ValueError(f"{name} must be {wanted}, not {type(row[name]).__name__}")
    return row[name]


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in row), None)
