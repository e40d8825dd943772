"""What an adapter in memory answers to texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from peftguard.errors import UnsupportedAdapter
from peftguard.mitigation.factored import Factored
from peftguard.mitigation.running import Running
from peftguard.padbench.training.base import LoadedBase, fastest_precision

_BATCH = 32


def answers_of(
    adapter: Factored, base: LoadedBase, texts: Sequence[str], max_tokens: int
) -> NDArray[np.int64]:
    """(n,) the class that each text is given.

    Raises:
        UnsupportedAdapter: the base gives no classes, or the adapter is not for it.
    """
    if base.n_labels is None:
        raise UnsupportedAdapter("a causal model gives no classes", file=adapter.name)
    tokens = base.tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    order = np.argsort([len(row) for row in tokens], kind="stable")
    answers = np.empty(len(tokens), np.int64)
    running = Running(adapter, base, fastest_precision())
    with running.placed(), torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            logits = running.logits([tokens[place] for place in places])
            answers[places] = logits.argmax(dim=1).numpy()
    return answers
