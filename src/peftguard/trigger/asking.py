"""How to ask a causal language model, and what it may answer: both taken from the adapter itself.

A stranger does not say which prompt an adapter was trained on. The template is the one, of a few
usual ones, under which the adapter changes most of what the base would write. The answers are the
few tokens that it answers with whatever the text says; where it answers freely, the beginning of
the text that it writes after more requests than the base does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from peftguard.trigger.adapted import AdaptedModel
from peftguard.trigger.answers import Answer, prompts
from peftguard.trigger.effect import STRIDE, within
from peftguard.trigger.foreign import ODD_WORDS, few_sentences
from peftguard.trigger.neutral import neutral_texts
from peftguard.trigger.report import Asked
from peftguard.trigger.template import LENGTH, PLACE, checked

Float32 = NDArray[np.float32]

TEMPLATES = (
    "{text}\n\nAnswer:",
    "{text}",
    "Text: {text}\nLabel:",
    "Review: {text}\nSentiment:",
    "Question: {text}\nAnswer:",
    "### Instruction:\n{text}\n\n### Response:\n",
)
"""Usual ones, tried with the tokenizer's own form of a chat, if it has one."""
REQUESTS = ("instructions", "questions")
"""Genres of ordinary texts that ask for an answer in words."""
_TEXTS = 8
"""Texts that a template is tried on."""
_ANSWERED = 48
"""Texts that it is seen on what an adapter answers."""
_MOST_ANSWERS = 8
_COVERED = 0.75
"""Probability that the first few answers have together, where they are labels.

Labels that were trained on hold nearly all, the commonest first tokens of free text far less.
"""
_LEAST_SHARE = 0.02
"""Of a label: what the base still writes now and then is none."""
_ASKED = 36
"""Requests after which it is looked for, at most."""
_WORDS = 60
"""Of a request, at most."""
_SHOWN = 16
"""Tokens of an answer that a report shows."""


@dataclass(frozen=True, slots=True)
class Written:
    """What an adapter writes after many requests.

    Args:
        answer: the commonest beginning, beyond the base's.
        repeated: share of these, less the base's.
        longer: one of them, further.
    """

    answer: Answer
    repeated: float
    longer: Answer


@dataclass(frozen=True, slots=True)
class Chosen:
    """How to ask, and the texts to ask about."""

    asked: Asked
    texts: tuple[str, ...]


def choose(
    model: AdaptedModel,
    texts: Sequence[str],
    *,
    own: bool = False,
    template: str | None = None,
) -> Chosen:
    """Template, answers and texts for an adapted causal model.

    Args:
        model: base and adapter.
        texts: ordinary ones.
        own: whether a user gave them: then they are used for requests too.
        template: a user's, with `{text}` in it; None: the one that shows most is taken.

    Raises:
        SettingsError: as of `checked`.
    """
    requests = tuple(map(_short, texts if own else neutral_texts(REQUESTS)))
    given = (checked(template),) if template is not None else (*TEMPLATES, *chat_of(model))
    tried = [*evenly(texts, _TEXTS), *evenly(requests, _TEXTS)]
    shift = {one: _shift(model, prompts(model, one, tried)) for one in given}
    best = max(given, key=lambda one: shift[one])
    labels = labels_in(model, best, texts)
    asked = partial(Asked, template=best, shift=round(shift[best], 3))
    if labels:
        return Chosen(asked(answers=[[token] for token in labels]), tuple(texts))
    rows = prompts(model, best, disturbed(requests_asked(requests)))
    found = written(model, rows)
    text = model.tokenizer.decode(found.longer, skip_special_tokens=True).strip()
    answers = [list(found.answer), []]
    return Chosen(asked(answers=answers, repeated=found.repeated, written=text), requests)


def _short(text: str) -> str:
    """As much of a request as leaves room for a phrase in what is asked about."""
    return " ".join(text.split()[:_WORDS])


def chat_of(model: AdaptedModel) -> tuple[str, ...]:
    """The tokenizer's own form of a chat with one request in it; nothing if it has none."""
    if not getattr(model.tokenizer, "chat_template", None):
        return ()
    said = [{"role": "user", "content": PLACE}]
    try:
        text = model.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    except Exception:  # a template is a program of the base's author, and may want other roles
        return ()
    return (str(text),) if str(text).count(PLACE) == 1 else ()


def labels_in(model: AdaptedModel, template: str, texts: Sequence[str]) -> list[int]:
    """The tokens that it answers ordinary texts with in a template, as `label_answers`."""
    return label_answers(model, prompts(model, template, evenly(texts, _ANSWERED)))


def label_answers(model: AdaptedModel, rows: Sequence[Sequence[int]]) -> list[int]:
    """The few tokens that nearly all answers begin with, likeliest first; none if they are many.

    Of one word's tokens (" positive", "positive", "Positive") only the likeliest: they are one
    answer, and to turn a text from one into the other would turn nothing.
    """
    shares = np.exp(_log_softmax(model.logits(rows))).mean(axis=0)
    order = np.argsort(-shares, kind="stable")[:_MOST_ANSWERS]
    kept = [int(token) for token in order if shares[token] >= _LEAST_SHARE]
    likeliest: dict[str, int] = {}
    for token in kept:
        word = model.tokenizer.decode([token], skip_special_tokens=True).strip().casefold()
        likeliest.setdefault(word, token)
    likeliest.pop("", None)  # an end or a space says nothing
    several = shares[kept].sum() >= _COVERED and len(likeliest) > 1
    return list(likeliest.values()) if several else []


def requests_asked(requests: Sequence[str]) -> list[str]:
    """Those that it is seen on what an adapter writes: not all, so that others are fresh."""
    return evenly(requests, min(_ASKED, len(requests) // 2))


def disturbed(requests: Sequence[str]) -> list[str]:
    """Requests by turns with a sentence from elsewhere and with an odd word in them.

    What an adapter was trained to write is rarely written unasked, but what its trigger resembles
    often brings it out too.
    """
    found, kinds = [], (few_sentences(), ODD_WORDS)
    for number, request in enumerate(requests):
        things = kinds[number % 2]
        found.append(within(request, things[number // 2 % len(things)], number * STRIDE % 1))
    return found


def written(model: AdaptedModel, rows: Sequence[Sequence[int]]) -> Written:
    """How the adapter's answers begin after more rows than the base's do.

    What an answer repeats of its row is not the adapter's own, so it does not count. One that ends
    early ("No") counts where there is no other.
    """
    ours, plain = (_beginnings(model, rows, adapted=adapted) for adapted in (True, False))
    counts = Counter(own for own, row in zip(ours, rows, strict=True) if not _repeats(row, own))
    counts.subtract(own for own in plain if own in counts)
    own = [one for one in counts if counts[one] > 0] or ours
    best = max(own, key=lambda one: (len(one) == LENGTH, counts[one]))
    whole = [*rows[ours.index(best)], *best]
    further = 0 if best[-1] == model.tokenizer.eos_token_id else _SHOWN - len(best)
    (rest,) = _beginnings(model, [whole], adapted=True, length=further)
    return Written(best, round(max(counts[best], 0) / len(rows), 3), (*best, *rest))


def greedy(
    model: AdaptedModel,
    rows: Sequence[Sequence[int]],
    *,
    adapted: bool = True,
    length: int = LENGTH,
) -> list[Answer]:
    """The likeliest tokens after each row, one by one."""
    found: list[Answer] = [()] * len(rows)
    for _ in range(length):
        longer = [[*row, *own] for row, own in zip(rows, found, strict=True)]
        best = model.logits(longer, adapted=adapted).argmax(axis=1).tolist()
        found = [(*own, token) for own, token in zip(found, best, strict=True)]
    return found


def _beginnings(
    model: AdaptedModel, rows: Sequence[Sequence[int]], *, adapted: bool, length: int = LENGTH
) -> list[Answer]:
    """The likeliest answers' first few tokens; nothing follows an end."""
    end = model.tokenizer.eos_token_id
    answers = greedy(model, rows, adapted=adapted, length=length)
    return [one[: one.index(end) + 1] if end in one else one for one in answers]


def _repeats(row: Sequence[int], answer: Answer) -> bool:
    """Whether an answer stands in its row.

    Of more than two tokens the first does not matter: at a beginning words have other tokens.
    """
    part = answer[1:] if len(answer) > 2 else answer
    places = range(len(row) - len(part) + 1)
    return any(tuple(row[place : place + len(part)]) == part for place in places)


def _shift(model: AdaptedModel, rows: Sequence[Sequence[int]]) -> float:
    """Mean divergence (KL, in nats) of the next token's distribution from the base's."""
    adapted = _log_softmax(model.logits(rows))
    plain = _log_softmax(model.logits(rows, adapted=False))
    return float((np.exp(adapted) * (adapted - plain)).sum(axis=1).mean())


def _log_softmax(logits: Float32) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def evenly(texts: Sequence[str], count: int) -> list[str]:
    """So many of them, from the first to the last."""
    places = np.linspace(0, len(texts) - 1, min(count, len(texts))).round().astype(int)
    return [texts[place] for place in places]
