"""What every detector is: a scikit-learn estimator over adapters, and what a trained one offers."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from peftguard.adapters.adapter import Adapter
    from peftguard.features.weights import Weights

Scores = NDArray[np.float64]


class State(NamedTuple):
    """All that `fit` learnt: arrays for a safetensors file, the rest as JSON."""

    tensors: dict[str, NDArray[Any]]
    settings: dict[str, Any]


class Estimator(ABC):
    """A detector that can be trained, after scikit-learn's contract, but over adapters.

    `__init__` only stores its parameters; what `fit` learns ends in an underscore. It does not
    inherit from scikit-learn, so that a scan need not import it; `sklearn.base.clone` works.
    """

    name: ClassVar[str]
    needs_labels: ClassVar[bool] = True
    """False where `fit` uses benign adapters only."""
    crosses_bases: ClassVar[bool] = False
    """True where adapters of a base model that was not trained on can be scored."""
    needs_search: ClassVar[bool] = False
    """True where adapters must have been searched for a trigger (`Weights.searched`)."""
    extra: ClassVar[str | None] = None
    """Optional dependency that fitting needs besides `detect`; scoring needs none."""

    @abstractmethod
    def fit(self, X: Sequence[Weights], y: ArrayLike) -> Self:
        """Learn from adapters.

        Args:
            X: n adapters.
            y: (n,) 1 for a backdoor that fires, 0 for benign.

        Raises:
            SettingsError: there is nothing to learn from (one class only, no common module).
        """

    @abstractmethod
    def decision_function(self, X: Sequence[Weights]) -> Scores:
        """(n,) scores, higher is more suspicious; 0 is where the fitted classifier decides."""

    @abstractmethod
    def state(self) -> State:
        """What was learnt, to be stored."""

    @abstractmethod
    def restore(self, state: State) -> Self:
        """Become the detector whose `state` this was.

        Raises:
            KeyError: something is missing.
            ValueError: something does not fit together.
        """

    def evidence(self, x: Weights) -> list[str]:
        """What in this adapter its score comes from, as clauses for a reader; often nothing."""
        return []

    def predict(self, X: Sequence[Weights]) -> NDArray[np.int64]:
        """(n,) 1 where the score is above 0."""
        return (self.decision_function(X) > 0).astype(np.int64)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of `__init__` by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Self:
        """Change parameters of `__init__`.

        Raises:
            ValueError: there is no such parameter.
        """
        for name, value in params.items():
            if name not in self._names():
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}")
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator: a binary classifier of one-dimensional input."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=self.needs_labels),
            classifier_tags=ClassifierTags(multi_class=False),
            input_tags=InputTags(one_d_array=True, two_d_array=False),
        )

    @classmethod
    def _names(cls) -> list[str]:
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        parameters = inspect.signature(cls.__init__).parameters.values()
        return [one.name for one in parameters if one.kind in named and one.name != "self"]


class DetectorCard(BaseModel):
    """Which detector spoke, and how far it can be trusted."""

    model_config = ConfigDict(extra="forbid")

    name: str
    sha256: str = Field(description="Hash of the detector's weights and card.")
    coverage: str = Field(description="What it was calibrated on, in one line.")
    n_calibration: int = Field(
        description="Benign adapters behind its p-values, in the smallest stratum."
    )
    true_positive_rate: float | None = Field(
        None, description="Share of firing backdoors flagged at 1 % FPR, if it was measured."
    )
    false_positive_rate: float | None = Field(
        None, description="Share of benign adapters flagged at 1 % FPR, if it was measured."
    )


class Detector(Protocol):
    """A detector as a scan uses it: fitted, calibrated, and knowing where it holds.

    Third parties publish one through the entry point group `peftguard.detectors`: a callable
    without arguments that returns one.
    """

    @property
    def card(self) -> DetectorCard:
        """What a verdict says of it."""
        ...

    def uncovered(self, adapter: Adapter) -> str | None:
        """Why this adapter lies outside the calibration, as a clause; None if it lies inside."""
        ...

    def decision_function(self, adapters: Sequence[Adapter]) -> Scores:
        """(n,) scores, higher is more suspicious."""
        ...

    def p_values(self, scores: Scores, adapters: Sequence[Adapter]) -> Scores:
        """(n,) conformal p-values in (0, 1] of the scores of these adapters.

        Each is its rank among benign calibration adapters of the same kind. That of an infinite
        score is the least there can be: at a rate below it the verdict is `unknown`.
        """
        ...

    def evidence(self, adapter: Adapter) -> list[str]:
        """What in a covered adapter its score comes from, as clauses; often nothing."""
        ...


def as_labels(X: Sequence[Weights], y: ArrayLike, *, both: bool = True) -> NDArray[np.int64]:
    """Labels as (n,) integers, checked.

    Raises:
        SettingsError: not 0 and 1, not one an adapter, or (`both`) one class only.
    """
    from peftguard.errors import SettingsError

    labels = np.asarray(y)
    if labels.shape != (len(X),) or not np.isin(labels, (0, 1)).all():
        raise SettingsError(f"labels: expected {len(X)} of 0 and 1, found {labels.shape}")
    if both and len(set(labels.tolist())) < 2:
        raise SettingsError("training needs benign and backdoored adapters; found one class only")
    return labels.astype(np.int64)


def array_of(state: State, name: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """A stored array of the given shape (None: any length).

    Raises:
        KeyError: it is not there.
        ValueError: its shape or type is another, or an entry is not finite.
    """
    array = state.tensors[name]
    fits = len(array.shape) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in "fiu":
        raise ValueError(f"{name}: expected numbers of shape {shape}, found {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: not finite")
    return array
