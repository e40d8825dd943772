"""One protocol: its trainings, each run once for all folds that test it, and their figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from peftguard.evaluation.metrics import metrics_of, rate, roc
from peftguard.evaluation.parting import Part, Split, Unsupported, is_control
from peftguard.evaluation.protocols import Protocol
from peftguard.evaluation.results import LEAK_TEST, Figure, Fold, Metrics, ProtocolResult, Scored
from peftguard.evaluation.sample import Sample, joined, merged
from peftguard.evaluation.trial import Entrant, Trial, run_trial
from peftguard.evaluation.zoo import FACTORS, Watch, Zoo

Training = tuple[tuple[int, ...], int | None]
"""Places of the training adapters, and how many of them a seed draws."""
Trials = dict[tuple[str, Training], Trial]
Samples = dict[tuple[str, str], Sample]
"""By fold and detector."""
Outside = dict[Part, NDArray[np.bool_] | None]
"""Which test adapters of a part a detector would not judge; None where nobody can tell."""


@dataclass(frozen=True)
class Course:
    """A protocol on a benchmark, for some entrants."""

    zoo: Zoo
    protocol: Protocol
    entrants: Sequence[Entrant]
    seeds: int
    fpr: float

    def run(self, watch: Watch | None = None) -> ProtocolResult:
        """Every trial and every figure; `watch` is called before each trial."""
        result = ProtocolResult(
            name=self.protocol.name, title=self.protocol.title, question=self.protocol.question
        )
        try:
            splits = self.protocol.splits(self.zoo)
        except Unsupported as reason:
            return result.model_copy(update={"skipped": str(reason)})
        outside = {part: _outside(self.zoo, part) for split in splits for part in split.parts}
        trials = self._trials(splits, outside, watch)
        samples: Samples = {}
        for split in splits:
            result.folds.append(self._measured(split, trials, outside, samples))
        pooled = [split.name for split in splits if split.pooled]
        if pooled:
            folds = [fold for fold in result.folds if fold.name in pooled]
            together = merged if any(split.wild for split in splits) else joined
            result.pooled = [
                self._pooled(one.name, folds, samples, together) for one in self.entrants
            ]
        result.curve = _curve(splits, result.folds)
        return result

    def _measured(self, split: Split, trials: Trials, outside: Outside, samples: Samples) -> Fold:
        """One fold's figures; what they are made of is added to `samples`."""
        fold = self._fold(split)
        for name in (entrant.name for entrant in self.entrants):
            own = [trials[name, (part.train, split.take)] for part in split.parts]
            failed = next((trial.failed for trial in own if trial.failed), None)
            if failed is None:
                sample = self._clustered(_sample(split, own, outside))
                samples[split.name, name] = sample
                fold.duds_flagged |= _duds(name, sample)
                fold.detectors.append(_scored(name, sample, own))
            else:
                fold.detectors.append(Scored(detector=name, failed=failed))
        return fold

    def _clustered(self, sample: Sample) -> Sample:
        """The sample, knowing which of its adapters are twins and which share a split group."""
        pairs, pools = self.zoo.groups(split_groups=False), self.zoo.groups()
        return replace(sample, pairs=pairs[sample.adapters], pools=pools[sample.adapters])

    def _trials(self, splits: Sequence[Split], outside: Outside, watch: Watch | None) -> Trials:
        tests: dict[Training, set[int]] = {}
        barred: dict[Training, Split] = {}
        for split in splits:
            for part in split.parts:
                training = part.train, split.take
                tests.setdefault(training, set()).update(_asked(split, part, outside[part]))
                barred[training] = split
        jobs = [(entrant, training) for entrant in self.entrants for training in tests]
        found = {}
        for number, (entrant, training) in enumerate(jobs):
            if watch is not None:
                watch(number, len(jobs), f"{self.protocol.name}: {entrant.name}")
            reason = _barred(entrant, barred[training])
            found[entrant.name, training] = (
                Trial(None, failed=reason)
                if reason
                else self._trial(entrant, training, sorted(tests[training]))
            )
        return found

    def _trial(self, entrant: Entrant, training: Training, test: Sequence[int]) -> Trial:
        train, take = training
        return run_trial(self.zoo, entrant, train, test, take=take, seeds=self.seeds, fpr=self.fpr)

    def _fold(self, split: Split) -> Fold:
        entries = self.zoo.entries
        trained = [[entries[i] for i in part.train] for part in split.parts]
        tested = [entries[i] for i in {i for part in split.parts for i in part.test}]
        share = 1.0 if split.take is None else split.take / len(trained[0])
        n_train, n_bad = (
            round(share * sum(counts) / len(counts))
            for counts in (
                [len(own) for own in trained],
                [sum(entry.positive for entry in own) for own in trained],
            )
        )
        duds = sum(entry.dud for entry in tested)
        return Fold(
            name=split.name,
            trained_on=split.trained_on,
            tested_on=split.tested_on,
            n_train=n_train,
            n_train_backdoored=n_bad,
            n_test=len(tested) - duds,
            n_test_backdoored=sum(entry.positive for entry in tested),
            n_duds=duds,
            n_bereft=len({i for part in split.parts for i in part.bereft}),
        )

    def _pooled(
        self,
        name: str,
        folds: Sequence[Fold],
        samples: Samples,
        together: Callable[[Sequence[Sample]], Sample],
    ) -> Scored:
        scored = [one for fold in folds for one in fold.detectors if one.detector == name]
        failed = next((one.failed for one in scored if one.failed), None)
        if failed is not None:
            return Scored(detector=name, failed=failed)
        sample = together([samples[fold.name, name] for fold in folds])
        return Scored(
            detector=name,
            metrics=_metrics(sample),
            groups=self._groups(sample) if len(set(sample.y.tolist()) - {-1}) > 1 else {},
            roc=roc(sample),
            fit_seconds=sum(one.fit_seconds for one in scored) / len(scored),
            score_seconds=sum(one.score_seconds for one in scored),
        )

    def _groups(self, sample: Sample) -> dict[str, dict[str, Metrics]]:
        """Figures by factor and value, where there are several values.

        A benign adapter counts with the value of its cell; one that names no attack, with each.
        """
        sample = sample.judged
        entries = [self.zoo.entries[i] for i in sample.adapters]
        found: dict[str, dict[str, Metrics]] = {}
        for factor in FACTORS:
            own = [entry.value(factor) for entry in entries]
            values = sorted({value for value in own if value is not None}, key=_in_order)
            control = [factor == "attack" and is_control(entry.row, factor) for entry in entries]
            masks = {
                value: np.array([mine == value or c for mine, c in zip(own, control, strict=True)])
                for value in values
            }
            if len(values) > 1:
                found[factor] = {v: metrics_of(sample.where(mask)) for v, mask in masks.items()}
        return found


def _barred(entrant: Entrant, split: Split) -> str | None:
    """Why a detector cannot take part."""
    if split.crossing and not entrant.crosses_bases:
        return "works within one base model"
    if split.wild and entrant.name == LEAK_TEST:
        return "adapters of the wild have no known recipe"
    return None


def _asked(split: Split, part: Part, outside: NDArray[np.bool_] | None) -> list[int]:
    """Test adapters to be scored: of strangers' those that are covered, as in a scan."""
    if not split.wild or outside is None:
        return list(part.test)
    return [place for place, out in zip(part.test, outside, strict=True) if not out]


def _sample(split: Split, trials: Sequence[Trial], outside: Outside) -> Sample:
    found = []
    for trial, part in zip(trials, split.parts, strict=True):
        mask = outside[part]
        asked = _asked(split, part, mask)
        sample = trial.of(asked)
        others = sorted(set(part.test) - set(asked))
        sample = joined([sample, Sample.unscored(others, len(sample.scores))])
        if mask is not None and split.take is None:
            at = dict(zip(part.test, mask.tolist(), strict=True))
            uncovered = np.array([at[int(place)] for place in sample.adapters], dtype=bool)
            sample = replace(sample, uncovered=uncovered)
        found.append(sample)
    return joined(found)


def _outside(zoo: Zoo, part: Part) -> NDArray[np.bool_] | None:
    """(n,) test adapters that a detector trained on this part would not judge; None if unknown."""
    from peftguard.detectors.coverage import Coverage, method_in
    from peftguard.errors import SettingsError

    entries = [zoo.entries[i] for i in part.train]
    try:
        cover = Coverage.fit([one.weights for one in entries], [one.row for one in entries])
    except SettingsError:
        return None
    return np.array(
        [
            method_in(one.row, one.weights) not in cover.card.methods
            or cover.uncovered(one.weights) is not None
            for one in (zoo.entries[i] for i in part.test)
        ]
    )


def _metrics(sample: Sample) -> Metrics:
    """All figures; of benign adapters alone, what they are flagged and abstained on."""
    found = metrics_of(sample)
    if (sample.y == 1).any():
        return found
    covered = Figure()
    if sample.uncovered is not None:
        covered = metrics_of(sample.where(~sample.uncovered)).fpr
    return Metrics(fpr=found.fpr, fpr_covered=covered, abstention=found.abstention)


def _scored(name: str, sample: Sample, trials: Sequence[Trial]) -> Scored:
    return Scored(
        detector=name,
        metrics=_metrics(sample),
        roc=roc(sample),
        fit_seconds=sum(trial.fit_seconds for trial in trials) / len(trials),
        score_seconds=sum(trial.score_seconds for trial in trials),
    )


def _duds(name: str, sample: Sample) -> dict[str, Figure]:
    duds = sample.y < 0
    return {name: rate(sample.flagged[:, duds])} if duds.any() else {}


def _curve(splits: Sequence[Split], folds: Sequence[Fold]) -> dict[str, list[tuple[int, Figure]]]:
    """AUROC over the number of labels, of the folds that have one."""
    found: dict[str, list[tuple[int, Figure]]] = {}
    for split, fold in zip(splits, folds, strict=True):
        for scored in fold.detectors if split.take is not None else ():
            if scored.failed is None:
                found.setdefault(scored.detector, []).append(
                    (split.take or 0, scored.metrics.auroc)
                )
    return found


def _in_order(value: str) -> tuple[int, str]:
    return (int(value), "") if value.isdigit() else (0, value)
