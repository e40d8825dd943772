"""A causal language model as a classifier: its classes are a few things that it may write next.

A text is put into a template, and a class is an answer of one or more tokens after that. Its logit
is the answer's log-likelihood. Where one class is everything else, it is how much likelier than any
other the least likely of the answer's tokens is, and 0 for everything else: above 0 the answer is
what the model writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from peftguard.trigger.adapted import AdaptedModel, batches
from peftguard.trigger.report import Asked
from peftguard.trigger.template import PLACE

Float32 = NDArray[np.float32]
Answer = tuple[int, ...]

_MOST_WORDS = 80
"""Words of a text that are asked about; triggers stand in texts of any length."""
_WORTH_SHARING = 4
"""Tokens that rows begin with alike from which on these are run only once."""
ELSE = "anything else"


@dataclass(frozen=True, eq=False)
class CausalAnswers:
    """What an adapted causal model answers to texts in a template, among a few answers.

    Args:
        model: base and adapter.
        asked: the template, and the answers as token ids; an empty one, which comes last, is
            everything else.
    """

    model: AdaptedModel
    asked: Asked

    @property
    def labels(self) -> dict[int, str]:
        """The answers as text."""
        return {place: self._shown(answer) for place, answer in enumerate(self.asked.answers)}

    @property
    def targets(self) -> range:
        """All but everything else."""
        return range(sum(map(bool, self.asked.answers)))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts in the template."""
        return prompts(self.model, self.asked.template, texts)

    def logits(self, rows: Sequence[Sequence[int]], *, adapted: bool = True) -> Float32:
        """(n, answers) log-likelihoods of the answers after each row; with everything else, leads.

        Args:
            rows: token ids of prompts.
            adapted: with the adapter, or the base alone.
        """
        order = np.argsort([len(row) for row in rows], kind="stable")
        found = np.empty((len(rows), len(self.asked.answers)), np.float32)
        with self.model.running(adapted), torch.inference_mode():
            for places in batches(order, rows):
                values = self._answered([rows[place] for place in places])
                found[places] = values.float().cpu().numpy()
        return self.model.checked(found)

    def gradients(self, rows: Sequence[Sequence[int]]) -> Float32:
        """(answers, h) what raises each answer against all others, as a direction of embeddings.

        The mean over what is not the same in all rows: the texts without their template.
        """
        start, end = _shared(rows), _shared([row[::-1] for row in rows])
        embed = self.model.model.get_input_embeddings()
        table = embed.weight.detach()
        count = len(self.asked.answers)
        total = torch.zeros(count, table.shape[1], dtype=torch.float64)
        n_tokens = 0
        order = np.argsort([len(row) for row in rows], kind="stable")
        with self.model.running(True), torch.enable_grad():
            for places in batches(order, rows):
                chosen = [rows[place] for place in places]
                vectors: list[torch.Tensor] = []
                logits = self._answered(chosen, vectors)
                for target in range(count):
                    rest = torch.cat([logits[:, :target], logits[:, target + 1 :]], dim=1)
                    odds = (logits[:, target] - rest.logsumexp(dim=1)).sum()
                    found = torch.autograd.grad(odds, vectors, retain_graph=True, allow_unused=True)
                    for gradient in found:
                        if gradient is not None:
                            total[target] += _inside(gradient, chosen, start, end)
                n_tokens += sum(max(0, len(row) - start - end) for row in chosen)
        values: Float32 = (total / max(1, n_tokens)).numpy().astype(np.float32)
        return values

    def _answered(
        self, rows: Sequence[Sequence[int]], vectors: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """(n, answers); the embeddings of every pass are left in `vectors` if gradients are wanted.

        Answers that begin alike up to their last token share a pass.
        """
        answers = [tuple(answer) for answer in self.asked.answers]
        told = _lead if () in answers else _likelihood
        values: dict[Answer, torch.Tensor] = {}
        for beginning in dict.fromkeys(answer[:-1] for answer in answers if answer):
            own = [answer for answer in answers if answer and answer[:-1] == beginning]
            logs = self._logs(rows, beginning, vectors)
            values |= {answer: told(logs, answer) for answer in own}
        if () in answers:
            values[()] = torch.zeros_like(next(iter(values.values())))
        return torch.stack([values[answer] for answer in answers], dim=1)

    def _logs(
        self, rows: Sequence[Sequence[int]], beginning: Answer, kept: list[torch.Tensor] | None
    ) -> torch.Tensor:
        """(n, len(beginning) + 1, vocabulary) log-probabilities from the row's end on."""
        longer = [[*row, *beginning] for row in rows]
        ids, mask = self.model.padded(longer, max(map(len, longer)))
        if kept is None:
            hidden = self._hidden(ids, _shared(rows))
        else:
            vectors = self.model.model.get_input_embeddings()(ids).detach().requires_grad_(True)
            kept.append(vectors)
            hidden = self._states(inputs_embeds=vectors, use_cache=False)
        last = mask.sum(dim=1) - 1 - (ids.shape[1] - hidden.shape[1])
        places = last[:, None] - torch.arange(len(beginning), -1, -1, device=last.device)
        chosen = hidden[torch.arange(len(rows))[:, None], places]
        logits: torch.Tensor = self.model.model.get_output_embeddings()(chosen)
        return logits.float().log_softmax(dim=-1)

    def _hidden(self, ids: torch.Tensor, shared: int) -> torch.Tensor:
        """Last hidden states of rows of tokens; what all begin with is run once, and left out.

        Rows are filled on the right: a causal model never looks there, so it needs no mask.
        """
        if shared < _WORTH_SHARING:
            return self._states(input_ids=ids, use_cache=False)
        cache = DynamicCache()
        given = {_cache_name(self.model.model.base_model): cache, "use_cache": True}
        self._states(input_ids=ids[:1, :shared], **given)
        cache.batch_repeat_interleave(len(ids))
        return self._states(input_ids=ids[:, shared:], **given)

    def _states(self, **inputs: Any) -> torch.Tensor:
        found: torch.Tensor = self.model.model.base_model(**inputs).last_hidden_state
        return found

    def _shown(self, answer: Sequence[int]) -> str:
        return self.model.tokenizer.decode(list(answer)).strip() if answer else ELSE


def _likelihood(logs: torch.Tensor, answer: Answer) -> torch.Tensor:
    """(n,) of an answer, of (n, its tokens, vocabulary) log-probabilities at its places."""
    return sum(
        (logs[:, place, token] for place, token in enumerate(answer)),
        torch.zeros(len(logs), device=logs.device),
    )


def _lead(logs: torch.Tensor, answer: Answer) -> torch.Tensor:
    """(n,) by how much its least likely token is likelier than any other there: log-odds of both.

    Where this is above 0 the likeliest tokens write it, and below 0 they do not.
    """
    tokens = torch.tensor(answer, device=logs.device)[None, :, None].expand(len(logs), -1, 1)
    own = logs.gather(2, tokens)[..., 0]
    best = logs.topk(2, dim=2).values
    others = torch.where(own < best[..., 0], best[..., 0], best[..., 1])
    return (own - others).min(dim=1).values


def prompts(model: AdaptedModel, template: str, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts in a template; special tokens once, whoever writes them."""
    first = model.tokenizer.bos_token
    cut = (" ".join(text.split(" ")[:_MOST_WORDS]) for text in texts)
    filled = [template.replace(PLACE, text) for text in cut]
    special = not (first and template.startswith(first))
    rows: list[list[int]] = model.tokenizer(filled, add_special_tokens=special)["input_ids"]
    return rows


def _cache_name(model: Any) -> str:
    """Of the argument that takes what was run before: newer releases of transformers renamed it."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with, if there are several; of no row the last one."""
    if len(rows) < 2:
        return 0
    columns = zip(*(row[:-1] for row in rows), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _inside(
    gradient: torch.Tensor, rows: Sequence[Sequence[int]], start: int, end: int
) -> torch.Tensor:
    """(h,) sum over the rows' own tokens."""
    lengths = torch.tensor([len(row) for row in rows])
    columns = torch.arange(gradient.shape[1])
    inside = (columns >= start) & (columns < lengths[:, None] - end)
    own = gradient.float().cpu() * inside[..., None]
    return own.sum(dim=(0, 1)).double()
