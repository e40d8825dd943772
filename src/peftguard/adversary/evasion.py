"""What an evasion is: a change to a finished adapter that is to hide its backdoor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from peftguard.errors import SettingsError
from peftguard.mitigation.factored import Factored

if TYPE_CHECKING:
    from peftguard.adversary.poisoned_task import PoisonedTask
    from peftguard.adversary.target import Target

Parts = tuple[Factored, ...]
"""Adapters that work together; one, but for colluding ones."""


class Need(StrEnum):
    """What an evasion takes besides the adapter."""

    TWIN = "twin"
    DETECTOR = "detector"
    DATA = "data"


@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """What the attacker has besides the adapter; what is not there is None.

    Args:
        rng: the only source of chance.
        twin: a benign adapter of the same base, dataset and method.
        target: the detector to deceive.
        task: the base model with the rows that the adapter was trained on, poisoned ones among
            them.
    """

    rng: np.random.Generator
    twin: Factored | None = None
    target: Target | None = None
    task: PoisonedTask | None = None

    def the_twin(self) -> Factored:
        """The twin. Raises SettingsError without one."""
        if self.twin is None:
            raise SettingsError("this needs a benign twin of the adapter: give --twin")
        return self.twin

    def the_target(self) -> Target:
        """The detector. Raises SettingsError without one."""
        if self.target is None:
            raise SettingsError("this needs a detector to deceive: give --detector")
        return self.target

    def the_task(self) -> PoisonedTask:
        """The base model and rows. Raises SettingsError without them."""
        if self.task is None:
            raise SettingsError("this needs the base model and the rows it was trained on: --data")
        return self.task


class Evasion(ABC):
    """One way to hide; it keeps nothing between calls, and never changes what it is given."""

    name: ClassVar[str]
    about: ClassVar[str]
    """One clause for a reader."""
    strength: ClassVar[str] = "none"
    """What the number stands for."""
    strengths: ClassVar[tuple[float, ...]] = (1.0,)
    """Values to try unless others are given, mildest first."""
    exact: ClassVar[bool] = False
    """True of exact symmetries: the update stays what it is, to rounding."""
    needs: ClassVar[frozenset[Need]] = frozenset()

    @abstractmethod
    def apply(self, adapter: Factored, strength: float, means: Means) -> Parts:
        """The adapter in disguise.

        Raises:
            SettingsError: the attacker lacks something, or the strength makes no sense.
            UnsupportedAdapter: it cannot be done to an adapter of this kind.
        """
