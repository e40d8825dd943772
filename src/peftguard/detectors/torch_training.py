"""Training a small torch network: minibatches, a validation part, the best epoch kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftguard.errors import MissingExtra
from peftguard.features.weights import Float32

Places = NDArray[np.intp]
Parameters = dict[str, Float32]
_VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Schedule:
    """How to train: Adam, its rate falling along a cosine to `last_rate`.

    Args:
        epochs: at most.
        batch: adapters a step.
        rate: of the first epoch.
        last_rate: what it falls to.
        decay: Adam's weight decay.
        patience: epochs without a better one that end training; None: all are gone through.
        patient_from: first epoch, from 0, that counts for it.
    """

    epochs: int
    batch: int
    rate: float
    last_rate: float
    decay: float
    patience: int | None = None
    patient_from: int = 0


class Outcome(NamedTuple):
    """Of one batch: logits (n, classes) and what to minimise, as torch tensors."""

    logits: Any
    loss: Any


Step = Callable[[Mapping[str, Any], Places, bool], Outcome]
"""(parameters, which adapters, whether it is for training) -> outcome."""


def import_torch(what: str) -> Any:
    """The module. Raises MissingExtra where it is not installed."""
    try:
        import torch
    except ImportError:
        raise MissingExtra(what, "torch") from None
    return torch


def initial(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Any]:
    """Trainable tensors as torch's layers start: uniform within 1 / sqrt(fan in).

    Args:
        shapes: of `LAYER.weight` and `LAYER.bias`, the first of each layer with its fan in.
        seed: of the draw.
    """
    torch = import_torch("training")
    generator = torch.Generator().manual_seed(seed)
    parameters = {}
    for name, shape in shapes.items():
        fan_in = math.prod(shapes[f"{name.rpartition('.')[0]}.weight"][1:])
        bound = 1 / math.sqrt(fan_in)
        tensor = torch.empty(shape).uniform_(-bound, bound, generator=generator)
        parameters[name] = tensor.requires_grad_()
    return parameters


def train(
    parameters: Mapping[str, Any],
    step: Step,
    labels: NDArray[np.int64],
    schedule: Schedule,
    seed: int,
) -> tuple[Parameters, list[float]]:
    """Parameters of the epoch with the lowest validation loss, and that loss by epoch.

    An epoch is better only if its validation accuracy has not fallen either. Validation is on 10 %
    of each class, on the training part where that is nobody.
    """
    torch = import_torch("training")
    rng = np.random.default_rng(seed)
    training, held_out = _parts(labels, rng)
    optimizer = torch.optim.Adam(
        parameters.values(), lr=schedule.rate, weight_decay=schedule.decay, fused=True
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=schedule.epochs, eta_min=schedule.last_rate
    )
    best, losses, waited = (math.inf, 0.0), [], 0
    kept = _copied(parameters)
    for epoch in range(schedule.epochs):
        _epoch(parameters, step, rng.permutation(training), schedule.batch, optimizer)
        cosine.step()
        loss, accuracy = _validate(parameters, step, held_out, labels, schedule.batch)
        losses.append(loss)
        better = loss < best[0] and accuracy >= best[1]
        if better:
            best, kept = (loss, accuracy), _copied(parameters)
        waited = 0 if better or epoch < schedule.patient_from else waited + 1
        if schedule.patience is not None and waited >= schedule.patience:
            break
    return kept, losses


def _parts(labels: NDArray[np.int64], rng: np.random.Generator) -> tuple[Places, Places]:
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == label))
        held_out[places[: int(_VALIDATION_SHARE * len(places))]] = True
    training = np.flatnonzero(~held_out)
    return training, np.flatnonzero(held_out) if held_out.any() else training


def _epoch(
    parameters: Mapping[str, Any], step: Step, order: Places, batch: int, optimizer: Any
) -> None:
    for start in range(0, len(order), batch):
        optimizer.zero_grad()
        step(parameters, order[start : start + batch], True).loss.backward()
        optimizer.step()


def _validate(
    parameters: Mapping[str, Any],
    step: Step,
    places: Places,
    labels: NDArray[np.int64],
    batch: int,
) -> tuple[float, float]:
    """Mean loss and accuracy."""
    torch = import_torch("training")
    loss, right = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(places), batch):
            some = places[start : start + batch]
            outcome = step(parameters, some, False)
            loss += len(some) * float(outcome.loss)
            right += int(np.sum(outcome.logits.argmax(1).numpy() == labels[some]))
    return loss / len(places), right / len(places)


def _copied(parameters: Mapping[str, Any]) -> Parameters:
    return {name: tensor.detach().numpy().copy() for name, tensor in parameters.items()}
