"""Short training of an adapter in memory over its base."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from peftguard.mitigation.factored import Factored
from peftguard.mitigation.method import Course, Given
from peftguard.mitigation.running import Running
from peftguard.padbench.training.base import fastest_precision
from peftguard.padbench.training.batches import TextRow, encode, schedule
from peftguard.padbench.training.stack import BETAS, EPSILON, MAX_NORM

_LEAST_SIZE = 1e-3
"""A parameter that starts at zero moves as one of this size."""


def trained(adapter: Factored, rows: Sequence[TextRow], given: Given, course: Course) -> Factored:
    """The adapter after a course on some rows: AdamW over all of its parameters.

    Rates are relative, so that it does not matter how an update's size is split between its factors
    and its scale. The same seed gives the same adapter on the same machine.

    Raises:
        SettingsError: there is no base, or a row lacks what the task needs.
        UnsupportedAdapter: the adapter is not for this base.
    """
    base = given.the_base()
    causal = base.n_labels is None
    encoded = encode(rows, base.tokenizer, given.max_tokens, causal=causal)
    running = Running(adapter, base, fastest_precision())
    optimizer = _optimizer(running.parameters, course.rate)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / course.steps)
    with running.placed(), torch.enable_grad():
        for batch in schedule(encoded.lengths, course.batch_size, course.steps, given.seed):
            tokens, labels = (
                [part[row] for row in batch] for part in (encoded.tokens, encoded.labels)
            )
            running.losses(tokens, labels).mean().backward()
            torch.nn.utils.clip_grad_norm_(running.parameters, MAX_NORM)
            optimizer.step()
            falling.step()
            optimizer.zero_grad()
    return running.learnt()


def _optimizer(parameters: Sequence[torch.Tensor], rate: float) -> torch.optim.Optimizer:
    groups = [
        {"params": [one], "lr": rate * max(_LEAST_SIZE, float(one.detach().square().mean().sqrt()))}
        for one in parameters
    ]
    return torch.optim.AdamW(groups, betas=BETAS, eps=EPSILON, weight_decay=0.0)
