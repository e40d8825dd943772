"""An evaluation, protocol by protocol."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

from peftguard import __version__
from peftguard.errors import MissingExtra, SettingsError
from peftguard.evaluation.calibration import Contestant
from peftguard.evaluation.course import Course
from peftguard.evaluation.leak import LeakTest
from peftguard.evaluation.protocols import PROTOCOLS
from peftguard.evaluation.results import LEAK_TEST, Counts, Evaluation
from peftguard.evaluation.trial import Entrant
from peftguard.evaluation.zoo import Watch, Zoo
from peftguard.features.memory import Memory


def evaluate(
    zoo: Zoo,
    protocols: Sequence[str],
    detectors: Sequence[str],
    *,
    seeds: int = 3,
    fpr: float = 0.01,
    command: str = "",
    watch: Watch | None = None,
    save: Callable[[Evaluation], None] | None = None,
) -> Evaluation:
    """Measure detectors, and the leak test beside them.

    Args:
        zoo: the benchmark.
        protocols: names in `PROTOCOLS`.
        detectors: names of estimators.
        seeds: repetitions of every fit.
        fpr: false-positive rate of the calibrated threshold.
        command: what to run for the same figures.
        watch: called before every trial.
        save: called with what there is so far after every protocol.

    Raises:
        SettingsError: no such protocol or detector.
        MissingExtra: scikit-learn is not installed.
    """
    check_names(protocols)
    entrants = entrants_of(zoo, detectors)
    result = Evaluation(
        peftguard=__version__,
        versions=library_versions(),
        zoo=zoo.name,
        manifest_sha256=zoo.manifest_sha256,
        seeds=seeds,
        fpr=fpr,
        counts=_counts(zoo),
        notes=_notes(zoo, fpr),
        command=command,
    )
    if save is not None:
        save(result)  # a file that cannot be written is found out now, not after an hour
    for name in protocols:
        course = Course(zoo, PROTOCOLS[name], entrants, seeds, fpr)
        result.protocols.append(course.run(watch))
        if save is not None:
            save(result)
    return result


def check_names(protocols: Sequence[str]) -> None:
    """Raise SettingsError for a protocol that does not exist."""
    for name in protocols:
        if name not in PROTOCOLS:
            raise SettingsError(f"no protocol {name!r}; known: {', '.join(PROTOCOLS)}")


def entrants_of(zoo: Zoo, detectors: Sequence[str]) -> list[Entrant]:
    """The detectors, sharing one memory, and the leak test.

    Raises:
        SettingsError: no such detector.
        MissingExtra: scikit-learn is not installed.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise MissingExtra("evaluating detectors", "detect") from None
    memory = Memory()
    memory.expect([entry.weights for entry in zoo.entries])
    rows = {entry.weights: entry.row for entry in zoo.entries}
    leak = Entrant(LEAK_TEST, lambda seed: LeakTest(rows, seed), crosses_bases=True)
    return [*(_entrant(name, memory) for name in dict.fromkeys(detectors)), leak]


def _entrant(name: str, memory: Memory) -> Entrant:
    from peftguard.detectors.registry import estimator_named

    def make(seed: int) -> Contestant:
        return estimator_named(name, memory=memory, seed=seed)

    return Entrant(name, make, estimator_named(name).crosses_bases)


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that figures depend on, where installed."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "scipy", "scikit-learn", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _counts(zoo: Zoo) -> Counts:
    rows = [zoo.entries[i].row for i in zoo.members()]
    labels, splits = Counter(row.label for row in rows), Counter(row.split for row in rows)
    return Counts(
        adapters=len(rows),
        benign=labels["benign"],
        backdoored=labels["backdoored"],
        duds=labels["dud"],
        bereft=_bereft(zoo),
        train=splits["train"],
        test=splits["test"],
    )


def _bereft(zoo: Zoo) -> int:
    return sum(zoo.bereft(i) for i in zoo.members())


def _notes(zoo: Zoo, fpr: float) -> list[str]:
    """How to read the figures, for this benchmark."""
    tested = [i for i in zoo.members("test") if zoo.trains(i)]
    benign = sum(not zoo.entries[i].positive for i in tested)
    found = [
        "Values are means over seeds, each of which draws 90 % of the training adapters. 95 % "
        "intervals: bootstrap over test adapters and seeds, twins drawn together; for rates the "
        "hull of that and Clopper-Pearson's.",
        "Duds (poisoned, but the trigger does not fire) neither train nor count; the share of them "
        f"that is flagged stands apart. Their benign twins, {_bereft(zoo)} here, are left out too: "
        "else cells with many duds would hold benign adapters only.",
        "Folds are pooled on the share of benign training adapters below a score (1 less its "
        "conformal p-value), by cross-fitting within each training set; nothing is standardised on "
        "test adapters.",
        f"The calibrated threshold stands for a false-positive rate of {fpr:g}, or 1/(n + 1) where "
        "n benign training adapters are too few for it. It comes from fits on four fifths of the "
        "training adapters, so its level is approximate: compare `fpr`.",
        "Other figures count every test adapter, whether the detector would abstain or not; in the "
        "wild an adapter that is not covered is not scored, and so not flagged: see the share of "
        "covered ones.",
    ]
    if zoo.has_splits:
        found.append(
            f"The test split has {benign} benign adapters: no finer false-positive rate than "
            f"1/{benign} can be told there, and fewer where a fold takes part of them."
        )
    else:
        found.append(
            "The manifest names no splits: three stratified parts were tested in turn, with "
            "training data, weights and split groups on one side each."
        )
    if zoo.unread:
        found.append(f"{len(zoo.unread)} adapters of the wild could not be read and are left out.")
    return found
