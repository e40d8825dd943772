"""A trained detector on disk: a folder with `detector.json` and `detector.safetensors`.

The first is its card, the second its arrays; the card holds the other's hash. Nothing in it is
executed, and it is checked like any stranger's file. The same detector gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from peftguard.adapters.containers.safetensors_file import open_safetensors
from peftguard.adapters.filenames import printable
from peftguard.adapters.jsonfile import load_json
from peftguard.adapters.plainfile import PlainFile
from peftguard.detectors.base import Estimator, State
from peftguard.detectors.registry import estimator_named
from peftguard.detectors.trained import (
    PREPROCESSING,
    Learnt,
    StratumCard,
    TensorFile,
    TrainedDetector,
    TrainingCard,
)
from peftguard.errors import LimitExceeded, MalformedFile, SettingsError
from peftguard.limits import GIB, MIB, Deadline, Limits

if TYPE_CHECKING:
    from peftguard.detectors.calibration import Calibration

CARD, TENSORS = "detector.json", "detector.safetensors"
_LIMITS = Limits(
    max_config_bytes=16 * MIB, max_file_bytes=4 * GIB, max_tensors=100_000, max_seconds=120.0
)
_ESTIMATOR, _COVERAGE, _CALIBRATION = "estimator.", "coverage.", "calibration."
_PREFIXES = (_ESTIMATOR, _COVERAGE, _CALIBRATION)
_MISFITS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def save_bundle(trained: TrainedDetector, folder: Path) -> None:
    """Write a detector's two files into `folder`, which is made if need be.

    Raises:
        SettingsError: the folder cannot be written.
    """
    data = tensor_bytes(trained.learnt)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The card last: without it, or with another, the arrays are nothing.
        for name, content in ((TENSORS, data), (CARD, trained.training.to_bytes())):
            temporary = folder / f".{name}.{os.getpid()}"
            temporary.write_bytes(content)
            os.replace(temporary, folder / name)
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be written: {error.strerror}") from None


def tensor_bytes(learnt: Learnt) -> bytes:
    """The file of arrays. Strata are numbered in the order of the card's list."""
    from safetensors.numpy import save

    tensors = {
        f"{_ESTIMATOR}{name}": array for name, array in learnt.estimator.state().tensors.items()
    }
    tensors |= {f"{_COVERAGE}{name}": array for name, array in learnt.coverage.tensors().items()}
    for place, scores in enumerate(learnt.calibration.scores.values()):
        tensors[f"{_CALIBRATION}{place}"] = scores
    return bytes(save({name: np.ascontiguousarray(array) for name, array in tensors.items()}))


def describe_tensors(data: bytes) -> TensorFile:
    """What a card says of its file of arrays."""
    return TensorFile(n_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def describe_strata(calibration: Calibration) -> list[StratumCard]:
    """What a card says of its calibration."""
    return [
        StratumCard(base=stratum.base, method=stratum.method, n=len(scores))
        for stratum, scores in calibration.scores.items()
    ]


def load_bundle(folder: Path) -> TrainedDetector:
    """The trained detector in `folder`, checked whole.

    Raises:
        TargetNotFound: one of its two files is not there.
        MalformedFile: a file breaks its format, is not the one the card names, or does not fit.
        LimitExceeded: too large.
        MissingExtra: its kind of detector needs an optional dependency.
    """
    detector = open_bundle(folder)
    _ = detector.learnt
    return detector


def open_bundle(folder: Path) -> TrainedDetector:
    """The same with nothing but its card read; the rest, and its errors, come when it is needed."""
    name = printable(folder.name) or "detector"
    training = _read_card(folder / CARD, f"{name}/{CARD}")
    return TrainedDetector(training, partial(_learnt, training, folder / TENSORS, name))


def _learnt(training: TrainingCard, path: Path, name: str) -> Learnt:
    from peftguard.detectors.coverage import Coverage

    tensors = _read_tensors(path, f"{name}/{TENSORS}", training.tensors)
    try:
        return Learnt(
            _estimator(training, tensors),
            _calibration(training, tensors),
            Coverage.restore(training.coverage, _under(_COVERAGE, tensors)),
        )
    except KeyError as error:
        key = printable(str(error.args[0]))
        raise MalformedFile("an entry is missing", file=name, key=key) from None
    except _MISFITS as error:
        what = printable(str(error))[:300]
        raise MalformedFile(f"does not fit together: {what}", file=name) from None


def _read_card(path: Path, name: str) -> TrainingCard:
    content = load_json(path, file=name, limits=_LIMITS)
    try:
        card = TrainingCard.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        found = first["input"] if not isinstance(first["input"], dict | list) else None
        raise MalformedFile(
            first["msg"].lower(), file=name, key=printable(where), found=found
        ) from None
    if card.preprocessing != PREPROCESSING:
        raise MalformedFile(
            "trained on weights prepared in another way",
            file=name,
            key="preprocessing",
            expected=PREPROCESSING,
            found=card.preprocessing,
        )
    return card


def _read_tensors(path: Path, name: str, expected: TensorFile) -> dict[str, NDArray[Any]]:
    deadline = Deadline(_LIMITS.max_seconds)
    with PlainFile(path, name) as file:
        if file.size > _LIMITS.max_file_bytes:
            most = f"at most {_LIMITS.max_file_bytes} bytes"
            raise LimitExceeded("too large for a detector", file=name, expected=most)
        if file.size != expected.n_bytes:
            raise _not_the_one(name, f"{expected.n_bytes} bytes", f"{file.size} bytes")
        found = _sha256(file, deadline)
        if found != expected.sha256:
            raise _not_the_one(name, expected.sha256, found)
        stored = open_safetensors(file, _LIMITS, deadline)
        return {key: _finite(stored.read(key), name, key) for key in stored.tensors}


def _sha256(file: PlainFile, deadline: Deadline) -> str:
    hasher = hashlib.sha256()
    for start in range(0, file.size, MIB):
        deadline.check(f"hashing {file.name}")
        hasher.update(file.read(start, min(MIB, file.size - start)))
    return hasher.hexdigest()


def _not_the_one(name: str, expected: str, found: str) -> MalformedFile:
    problem = f"not the file that {CARD} names"
    return MalformedFile(problem, file=name, expected=expected, found=found)


def _finite(array: NDArray[Any], name: str, key: str) -> NDArray[Any]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise MalformedFile("NaN or infinite values", file=name, key=printable(key))
    return array


def _estimator(training: TrainingCard, tensors: Mapping[str, NDArray[Any]]) -> Estimator:
    state = State(_under(_ESTIMATOR, tensors), dict(training.settings))
    if "memory" in training.params:
        raise ValueError("params: memory is not stored")
    try:
        return estimator_named(training.estimator, **training.params).restore(state)
    except SettingsError as error:
        raise ValueError(str(error)) from None


def _calibration(training: TrainingCard, tensors: Mapping[str, NDArray[Any]]) -> Calibration:
    from peftguard.detectors.calibration import Calibration, Stratum

    own = _under(_CALIBRATION, tensors)
    stray = next((name for name in tensors if not name.startswith(_PREFIXES)), None)
    if stray is not None:
        raise ValueError(f"{printable(stray)}: no part of a detector")
    scores = {}
    for place, stratum in enumerate(training.calibration):
        array = own[str(place)]
        if array.shape != (stratum.n,) or array.dtype.kind != "f":
            raise ValueError(f"calibration.{place}: expected {stratum.n}, found {array.shape}")
        scores[Stratum(stratum.base, stratum.method)] = array.astype(np.float64)
    missing = {Stratum(base, None) for base in training.coverage.bases} - scores.keys()
    if missing or len(own) != len(training.calibration):
        raise ValueError(f"calibration: {len(own)} arrays for {len(training.calibration)} strata")
    return Calibration(scores)


def _under(prefix: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    start = len(prefix)
    return {name[start:]: array for name, array in tensors.items() if name.startswith(prefix)}
