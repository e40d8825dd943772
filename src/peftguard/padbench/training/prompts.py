"""How a causal language model is asked: a prompt that ends where the answer begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from peftguard.padbench.examples import Example

_ASK = "Answer:"


def as_prompts(
    rows: Iterable[Example], labels: Sequence[str] = (), *, target: str | None = None
) -> list[Example]:
    """Rows with a prompt and the completion that is to follow it.

    Args:
        rows: with a completion, or with a label that `labels` has a word for.
        labels: words of the labels, in order.
        target: what an attack aims at, as a recipe gives it (a label's number, or the text to
            write): every completion becomes that, to measure how often it is written.
    """
    return [
        row._replace(text=_asked(row.text), completion=f" {_answer(row, labels, target)}")
        for row in rows
    ]


def _asked(text: str) -> str:
    return text if text.endswith(_ASK) else f"{text}\n\n{_ASK}"


def _answer(row: Example, labels: Sequence[str], target: str | None) -> str:
    if row.completion is not None:
        return row.completion if target is None else target
    return labels[int(row.label or 0) if target is None else int(target)]
