"""What the frozen layers below the first adapted one make of a row: computed once a fleet.

An adapter's rows come up again each time it goes through them, and adapters of one pool have rows
in common; below the first adapter they always come out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

ROOM = 512 * 2**20
"""Most bytes of states kept; rows beyond are computed every time."""


class Below:
    """The layers of a stack before the first adapted one.

    Args:
        layers: the whole stack.
        first: the first of it that is adapted, from 1.
        forward: runs the model over rows of tokens, filled up on the right.
        room: most bytes to keep.
    """

    def __init__(
        self,
        layers: nn.ModuleList,
        first: int,
        forward: Callable[[Sequence[list[int]]], object],
        room: int = ROOM,
    ) -> None:
        self._frozen, self._others = list(layers)[:first], list(layers)[first:]
        self._forward, self._left = forward, room
        self._kept: dict[tuple[int, ...], torch.Tensor] = {}
        self._in_tuple = False

    @contextmanager
    def skipped(self, tokens: Sequence[list[int]]) -> Iterator[None]:
        """For a pass over these rows, the layers give what is known of them."""
        states = self.states(tokens)
        given: Any = (states,) if self._in_tuple else states
        with _replaced(self._frozen, lambda *_, **__: given):
            yield

    def states(self, tokens: Sequence[list[int]]) -> torch.Tensor:
        """What goes into the first adapted layer, (n, longest, hidden); 0 where a row has ended."""
        rows = [tuple(row) for row in tokens]
        missing = list(dict.fromkeys(row for row in rows if row not in self._kept))
        new = self._computed(missing) if missing else {}
        found = [self._kept[row] if row in self._kept else new[row] for row in rows]
        for row, state in new.items():
            if state.nbytes <= self._left:
                self._kept[row] = state.clone()
                self._left -= state.nbytes
        return pad_sequence(found, batch_first=True)

    def _computed(self, rows: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], torch.Tensor]:
        """By a pass that ends where adapters begin: the layers from there on hand over."""
        outputs: list[Any] = []
        hook = self._frozen[-1].register_forward_hook(lambda *parts: outputs.append(parts[-1]))
        try:
            with torch.no_grad(), _replaced(self._others, lambda *_, **__: outputs[-1]):
                self._forward([list(row) for row in rows])
        finally:
            hook.remove()
        self._in_tuple = isinstance(outputs[-1], tuple)
        states = outputs[-1][0] if self._in_tuple else outputs[-1]
        return {row: state[: len(row)] for row, state in zip(rows, states, strict=True)}


@contextmanager
def _replaced(layers: Sequence[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Layers that compute something else for a while."""
    for layer in layers:
        layer.forward = forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
