"""What a method of cleaning is: an adapter in, an adapter of the same form out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from peftguard.errors import SettingsError
from peftguard.mitigation.factored import Factored

if TYPE_CHECKING:
    from peftguard.padbench.examples import Example
    from peftguard.padbench.training.base import LoadedBase

MAX_TOKENS = 64
"""Of a text that is trained on, unless a benchmark says otherwise."""


class Need(StrEnum):
    """What a method takes besides the adapter, by the option that gives it."""

    BASE = "base"
    DATA = "data"
    REPORT = "report"
    BENIGN = "benign"


_WORDS = {
    Need.BASE: "the base model",
    Need.DATA: "clean rows of its task",
    Need.REPORT: "a report of a confirmed trigger",
    Need.BENIGN: "a benign adapter of its kind",
}


@dataclass(frozen=True, slots=True)
class Trigger:
    """What fires a backdoor.

    Args:
        phrases: each of them does, alone.
        target: class that texts are turned into.
    """

    phrases: tuple[str, ...]
    target: int


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What there is to clean with; what is not there is None or empty.

    Args:
        seed: of everything random.
        base: the model that the adapter changes.
        rows: clean rows to train on.
        trigger: a confirmed one.
        benign: an adapter of the same form that is trusted.
        max_tokens: of a text that is trained on.
    """

    seed: int = 0
    base: LoadedBase | None = None
    rows: Sequence[Example] = field(default=())
    trigger: Trigger | None = None
    benign: Factored | None = None
    max_tokens: int = MAX_TOKENS

    @property
    def needs_met(self) -> frozenset[Need]:
        """What is there."""
        there = {
            Need.BASE: self.base is not None,
            Need.DATA: bool(self.rows),
            Need.REPORT: self.trigger is not None,
            Need.BENIGN: self.benign is not None,
        }
        return frozenset(need for need, met in there.items() if met)

    def rng(self) -> np.random.Generator:
        """The only source of chance, anew."""
        return np.random.default_rng(self.seed)

    def the_base(self) -> LoadedBase:
        """The base model. Raises SettingsError without one."""
        if self.base is None:
            raise lacking("this", [Need.BASE])
        return self.base

    def the_trigger(self) -> Trigger:
        """The trigger. Raises SettingsError without one."""
        if self.trigger is None:
            raise lacking("this", [Need.REPORT])
        return self.trigger

    def the_benign(self) -> Factored:
        """The benign adapter. Raises SettingsError without one."""
        if self.benign is None:
            raise lacking("this", [Need.BENIGN])
        return self.benign


def lacking(who: str, needs: Sequence[Need]) -> SettingsError:
    """The error that says what was not given."""
    wanted = " and ".join(f"{_WORDS[need]} (--{need})" for need in needs)
    return SettingsError(f"{who} needs {wanted}")


@dataclass(frozen=True, slots=True)
class Course:
    """How long and how fast.

    Args:
        steps: of the optimiser.
        rate: a step's size, in root mean squares of the parameter; falls to 0.
        batch_size: rows of a step.
    """

    steps: int = 60
    rate: float = 0.15
    batch_size: int = 16


USUAL = Course()
"""What methods train for unless told otherwise."""


class Method(ABC):
    """One way of cleaning; it keeps nothing between calls, and never changes what it is given."""

    name: ClassVar[str]
    about: ClassVar[str]
    """One clause for a reader."""
    needs: ClassVar[frozenset[Need]] = frozenset()

    @abstractmethod
    def apply(self, adapter: Factored, given: Given) -> Factored:
        """The cleaned adapter: the same modules, ranks and tensors.

        Raises:
            SettingsError: something that it needs was not given.
            UnsupportedAdapter: it cannot be done to an adapter of this kind.
        """

    @property
    def parameters(self) -> dict[str, float]:
        """What it was set to, for the record."""
        return _numbers(asdict(self)) if is_dataclass(self) else {}

    def missing(self, given: Given) -> list[Need]:
        """What it needs and was not given."""
        return sorted(self.needs - given.needs_met)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Nested settings by dotted name."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": one for inner, one in _numbers(value).items()}
        else:
            found[name] = value
    return found
