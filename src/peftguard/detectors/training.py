"""From a benchmark to a trained detector: fitted, calibrated, measured, knowing where it holds.

Every figure on the card comes from adapters held out of the fit that scores them and of its
coverage, and is judged by scores of the other parts, from fits that did see them. They are of the
benchmark's own kind, and often of the same pools of data: how a detector does on other attacks,
data or ranks is what `peftguard evaluate` measures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from peftguard.detectors.base import Estimator, Scores
from peftguard.detectors.bundle import describe_strata, describe_tensors, tensor_bytes
from peftguard.detectors.calibration import Calibration
from peftguard.detectors.coverage import Coverage, distinct_bases, method_in
from peftguard.detectors.declared import base_among
from peftguard.detectors.registry import estimator_named
from peftguard.detectors.trained import (
    AtRate,
    Learnt,
    Metrics,
    Protocol,
    Rate,
    TrainedDetector,
    TrainingCard,
    ZooCard,
)
from peftguard.errors import MissingExtra, SettingsError
from peftguard.evaluation.parting import Part, Unsupported, turns
from peftguard.evaluation.zoo import Watch, Zoo
from peftguard.features.memory import Memory
from peftguard.results import SEARCH_VERSION

Scheme = Literal["cross", "split"]
Bools = NDArray[np.bool_]

FOLDS = 5
_SPLIT = 3
"""Of a split calibration: one part in so many is held out."""
_RATES = (0.01, 0.05)


@dataclass(frozen=True, slots=True)
class Options:
    """How to train.

    Args:
        kind: name of the estimator.
        seed: of everything random.
        calibration: where calibration scores come from, see `peftguard.detectors.calibration`.
        fpr: false-positive rate to report on, besides 1 and 5 %.
        decides: whether this detector alone decides among shipped ones of its base model.
        base: the only base model whose adapters were read, for its name; None: all were.
        searched: file that scores of trigger searches came from, for the command.
    """

    kind: str
    seed: int = 0
    calibration: Scheme = "cross"
    fpr: float = 0.01
    decides: bool = False
    base: str | None = None
    searched: str | None = None


@dataclass(slots=True, eq=False)
class HeldOut:
    """Each of n adapters as a detector saw it that had not been trained on it.

    Args:
        parts: places of the adapters that trained, and of those that were held out.
        scores: (n,) NaN for adapters that never were.
        covered: (n,) whether it would have been scored in a scan.
        fitted: detector and coverage of the last part.
    """

    parts: Sequence[Part]
    scores: Scores
    covered: Bools
    fitted: list[tuple[Estimator, Coverage]] = field(default_factory=list)


def train(zoo: Zoo, options: Options, watch: Watch | None = None) -> TrainedDetector:
    """Fit, calibrate and measure one detector; duds and their benign twins are left out.

    Args:
        zoo: the benchmark, read whole.
        options: how.
        watch: called before each fit.

    Raises:
        SettingsError: no such kind of detector, or too few adapters to train and calibrate on.
        MissingExtra: an optional dependency is needed.
    """
    if not all(find_spec(library) for library in ("sklearn", "scipy")):
        raise MissingExtra("training", "detect")
    members = [place for place in zoo.members() if zoo.trains(place)]
    make = _maker(zoo, members, options)
    parts, groups = _parts(zoo, members, options.calibration)

    def note(done: int) -> None:
        if watch is not None:
            watch(done, len(parts) + 1, options.kind)

    held_out = _hold_out(zoo, parts, make, options.seed, note)
    note(len(parts))
    if options.calibration == "cross":
        estimator, coverage = _fit(zoo, members, make, options.seed)
    else:
        ((estimator, coverage),) = held_out.fitted
    calibration = _calibrate(zoo, held_out.scores, _judged(zoo, held_out, _tested(parts)))
    metrics = _measure(zoo, held_out, sorted({*_RATES, options.fpr}))
    protocol = Protocol(calibration=options.calibration, folds=len(parts), groups=groups)
    learnt = Learnt(estimator, calibration, coverage)
    return TrainedDetector(_card(zoo, options, learnt, protocol, metrics), lambda: learnt)


def _maker(zoo: Zoo, members: Sequence[int], options: Options) -> Callable[[], Estimator]:
    """Makes unfitted detectors that share what is computed of each adapter."""
    memory = Memory()
    memory.expect([zoo.entries[place].weights for place in members])
    return partial(estimator_named, options.kind, seed=options.seed, memory=memory)


def _parts(zoo: Zoo, members: Sequence[int], scheme: Scheme) -> tuple[list[Part], str]:
    """Training and held-out adapters in turn, and what is never parted.

    Whole split groups are held out together where there is one for each part and every part leaves
    both classes to train on, else adapters with identical training data or weights. Whole groups
    make uneven parts, and what is held out may be of data that training never saw: its benign
    adapters then score as a stranger's would, which is what a threshold is for.
    """
    count = FOLDS if scheme == "cross" else _SPLIT
    same = "identical training data; pools of data and triggers are shared"
    ways = [(zoo.groups(split_groups=False), same)]
    if any(entry.row.split_group for entry in zoo.entries):
        ways.insert(0, (zoo.groups(), "split groups"))
    reason = "a class would be held out whole"
    for groups, name in ways:
        try:
            parts = turns(zoo, members, count, groups)
        except Unsupported as error:
            reason = str(error)
            continue
        if all(_teaches(zoo, part) for part in parts):
            return (parts if scheme == "cross" else parts[:1]), name
    raise SettingsError(f"{zoo.name}: cannot be held out in turn: {reason}")


def _teaches(zoo: Zoo, part: Part) -> bool:
    """Whether both classes are trained on, and a benign adapter is held out to calibrate by."""
    labels = zoo.labels()
    return len(set(labels[list(part.train)])) == 2 and bool(_benign(zoo, part.test))


def _hold_out(
    zoo: Zoo,
    parts: Sequence[Part],
    make: Callable[[], Estimator],
    seed: int,
    note: Callable[[int], None],
) -> HeldOut:
    n = len(zoo.entries)
    found = HeldOut(parts, np.full(n, np.nan), np.zeros(n, dtype=np.bool_))
    for done, part in enumerate(parts):
        note(done)
        estimator, coverage = _fit(zoo, part.train, make, seed)
        tested = [zoo.entries[place].weights for place in part.test]
        scores = estimator.decision_function(tested)
        if not np.isfinite(scores).all():
            raise SettingsError(f"{estimator.name}: scores are not finite")
        places = list(part.test)
        found.scores[places] = scores
        found.covered[places] = [coverage.uncovered(one) is None for one in tested]
        found.fitted = [(estimator, coverage)]
    return found


def _fit(
    zoo: Zoo, places: Sequence[int], make: Callable[[], Estimator], seed: int
) -> tuple[Estimator, Coverage]:
    entries = [zoo.entries[place] for place in places]
    X, y = [one.weights for one in entries], [int(one.positive) for one in entries]
    return make().fit(X, y), Coverage.fit(X, [one.row for one in entries], seed=seed)


def _calibrate(zoo: Zoo, scores: Scores, places: Sequence[int]) -> Calibration:
    try:
        return Calibration.fit(scores[list(places)], *_kinds(zoo, places))
    except ValueError as error:
        raise SettingsError(f"{zoo.name}: cannot be calibrated: {error}") from None


def _measure(zoo: Zoo, held_out: HeldOut, rates: Sequence[float]) -> Metrics:
    tested = _tested(held_out.parts)
    labels = zoo.labels()
    p_values = _fair_p_values(zoo, held_out)
    benign = [place for place in tested if not labels[place]]
    backdoored = [place for place in tested if labels[place]]
    at = []
    for fpr in rates:
        flagged = held_out.covered & (p_values <= fpr)
        judged = [place for place in benign if not np.isnan(p_values[place])]
        found, wrong = _rate(flagged[backdoored]), _rate(flagged[judged])
        at.append(AtRate(fpr=fpr, true_positive_rate=found, false_positive_rate=wrong))
    return Metrics(
        auroc=_auroc(zoo, held_out.scores, tested),
        at=at,
        covered_benign=_rate(held_out.covered[benign]),
        covered_backdoored=_rate(held_out.covered[backdoored]),
    )


def _fair_p_values(zoo: Zoo, held_out: HeldOut) -> Scores:
    """(n,) p-values of the adapters of each part by the benign ones of the others.

    With one part, of its backdoored adapters by its benign ones; NaN where there is none.
    """
    p_values = np.full(len(zoo.entries), np.nan)
    for part in held_out.parts:
        others = [one for one in held_out.parts if one is not part]
        tested = list(part.test) if others else [p for p in part.test if zoo.labels()[p]]
        calibration = _calibrate(
            zoo, held_out.scores, _judged(zoo, held_out, _tested(others or [part]))
        )
        try:
            scores = held_out.scores[tested]
            p_values[tested] = calibration.p_values(scores, *_kinds(zoo, tested))
        except KeyError as error:
            raise SettingsError(f"{zoo.name}: too few benign adapters of {error}") from None
    return p_values


def _kinds(zoo: Zoo, places: Sequence[int]) -> tuple[list[str], list[str]]:
    """Base and method of each, as a scan would tell them."""
    known = distinct_bases([entry.weights for entry in zoo.entries])
    entries = [zoo.entries[place] for place in places]
    bases = [base_among(one.weights.base_model or "", known) or "" for one in entries]
    return bases, [method_in(one.row, one.weights) for one in entries]


def _tested(parts: Sequence[Part]) -> list[int]:
    return sorted(place for part in parts for place in part.test)


def _benign(zoo: Zoo, places: Sequence[int]) -> list[int]:
    return [place for place in places if zoo.entries[place].row.label == "benign"]


def _judged(zoo: Zoo, held_out: HeldOut, places: Sequence[int]) -> list[int]:
    """Benign adapters that a scan would score: only those stand for the ones it will."""
    return [place for place in _benign(zoo, places) if held_out.covered[place]]


def _rate(happened: Bools) -> Rate | None:
    from peftguard.evaluation.metrics import rate

    return _figure(rate(happened[None]).model_dump())


def _auroc(zoo: Zoo, scores: Scores, places: Sequence[int]) -> Rate | None:
    from peftguard.evaluation.metrics import metrics_of
    from peftguard.evaluation.sample import Sample

    at, rows = list(places), scores[None, list(places)]
    y = zoo.labels()[at]
    pairs, pools = zoo.groups(split_groups=False)[at], zoo.groups()[at]
    sample = Sample(
        np.arange(len(y)), y, rows, np.full_like(rows, 0.5), rows > 0, pairs=pairs, pools=pools
    )
    return _figure(metrics_of(sample).auroc.model_dump())


def _figure(measured: dict[str, float | int | None]) -> Rate | None:
    return None if measured["value"] is None else Rate.model_validate(measured)


def _card(
    zoo: Zoo,
    options: Options,
    learnt: Learnt,
    protocol: Protocol,
    metrics: Metrics,
) -> TrainingCard:
    from peftguard.evaluation.run import library_versions

    params = learnt.estimator.get_params()
    parts = zoo.name, options.base, options.kind
    return TrainingCard(
        name=re.sub(r"[^\w.+-]+", "-", "-".join(filter(None, parts))),
        decides=options.decides,
        search_version=SEARCH_VERSION if learnt.estimator.needs_search else None,
        estimator=options.kind,
        params={key: value for key, value in params.items() if key != "memory"},
        seed=options.seed,
        zoo=_zoo_card(zoo),
        coverage=learnt.coverage.card,
        protocol=protocol,
        metrics=metrics,
        calibration=describe_strata(learnt.calibration),
        settings=learnt.estimator.state().settings,
        tensors=describe_tensors(tensor_bytes(learnt)),
        versions=library_versions(),
        command=_command(zoo, options),
    )


def _zoo_card(zoo: Zoo) -> ZooCard:
    members = zoo.members()
    bereft = sum(zoo.bereft(place) for place in members)
    labels = [zoo.entries[place].row.label for place in members]
    return ZooCard(
        name=zoo.name,
        manifest_sha256=zoo.manifest_sha256,
        n_benign=labels.count("benign") - bereft,
        n_backdoored=labels.count("backdoored"),
        n_duds=labels.count("dud"),
        n_bereft=bereft,
    )


def _command(zoo: Zoo, options: Options) -> str:
    """What makes the same detector again, in the folder that holds the benchmark."""
    words = f"peftguard train {zoo.name} --detector {options.kind} --seed {options.seed}"
    words += f" --base {options.base}" if options.base else ""
    words += f" --searched {options.searched}" if options.searched else ""
    words += f" --calibration {options.calibration} --fpr {options.fpr:g}"
    return words + (" --decides" if options.decides else "")
