"""A benchmark's adapters, and what there is to clean each of them with.

Triggers are those of the manifest: what a method does is measured as if a search had confirmed
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from peftguard.adapters.adapter import open_adapter
from peftguard.adversary.measuring import Measuring, Subject
from peftguard.adversary.rows import recipe_of
from peftguard.adversary.victims import as_built
from peftguard.errors import TargetNotFound
from peftguard.mitigation.clean_rows import TRAINED_ON, drawn
from peftguard.mitigation.factored import Factored, read_factored
from peftguard.mitigation.method import Given, Trigger
from peftguard.mitigation.record import Figures, Share
from peftguard.padbench.attacks import attack_named
from peftguard.padbench.attacks.counter import Countered
from peftguard.padbench.attacks.words import Insertion
from peftguard.padbench.datasets import pool, training_rows
from peftguard.padbench.examples import Example
from peftguard.padbench.manifest import FILE_NAME, Row, read_manifest
from peftguard.padbench.recipe import Split


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark's adapters, and what there is to clean each of them with.

    Args:
        root: its folder.
        rows: its manifest.
        measuring: where held-out rows come from.
        base: in place of the base that the manifest names.
        seed: of everything random.
    """

    root: Path
    rows: Sequence[Row]
    measuring: Measuring
    base: str | None = None
    seed: int = 0

    def given(self, row: Row) -> Given:
        """For one adapter: its base, clean rows that it never saw, its trigger, a benign adapter.

        Raises:
            SettingsError: its row says too little, or a dataset is missing.
        """
        from peftguard.padbench.training.loaded import base_for

        recipe = recipe_of(row, self.base)
        return Given(
            seed=self.seed,
            base=base_for(recipe),
            rows=self._clean_rows(row),
            trigger=trigger_of_row(row),
            benign=self._benign(row),
            max_tokens=recipe.max_tokens,
        )

    def measure(self, adapter: Factored, row: Row) -> Figures:
        """Figures of an adapter on the rows that the benchmark measured the original with."""
        counts = self.measuring.measure([Subject(adapter, recipe_of(row, self.base))])[0]
        return Figures(
            accuracy=Share(hits=counts.clean.hits, n=counts.clean.n),
            fires=Share(hits=counts.success.hits, n=counts.success.n),
            without=Share(hits=counts.missed.hits, n=counts.missed.n),
        )

    def _clean_rows(self, row: Row) -> list[Example]:
        """Of the pool of the other split: none of them is in the adapter's own training data."""
        other: Split = "train" if row.split == "test" else "test"
        rows = _pool(str(row.dataset), self.measuring.data, other, self.measuring.test_share)
        return drawn(list(rows), TRAINED_ON, self.seed)

    def _benign(self, row: Row) -> Factored | None:
        """Another benign adapter of the same kind and data."""
        kind = ("base", "dataset", "method", "rank", "target_modules", "layers")
        for other in self.rows:
            alike = all(getattr(other, name) == getattr(row, name) for name in kind)
            if other.label == "benign" and alike and other.path != row.path:
                with open_adapter(self.root / other.path) as opened:
                    return read_factored(opened)
        return None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which adapters of a benchmark: those that fire, and so many of them at random.

    Args:
        controls: benign ones as well.
        split: of one split.
        limit: most.
    """

    controls: bool = False
    split: str | None = None
    limit: int | None = None


def read_benchmark(root: Path, data: Path, base: str | None = None, seed: int = 0) -> Benchmark:
    """A benchmark by its folder.

    Args:
        root: with a manifest.
        data: folder with one folder a dataset.
        base: in place of the base that the manifest names.
        seed: of everything random.

    Raises:
        TargetNotFound, MalformedFile: there is no manifest, or it is broken.
    """
    rows = read_manifest(root)
    measuring = Measuring(data, as_built(root, "test_share"))
    return Benchmark(root, rows, measuring, base, seed)


def chosen(benchmark: Benchmark, choice: Choice) -> list[Row]:
    """The adapters to clean, in random order.

    Raises:
        TargetNotFound: there are none.
    """
    labels = ("backdoored", "benign") if choice.controls else ("backdoored",)
    rows = [
        row for row in benchmark.rows if row.label in labels and choice.split in (None, row.split)
    ]
    if not rows:
        raise TargetNotFound("no such adapter", file=str(benchmark.root / FILE_NAME))
    order = np.random.default_rng(benchmark.seed).permutation(len(rows))
    return [rows[place] for place in order[: choice.limit]]


def trigger_of_row(row: Row) -> Trigger | None:
    """The words or sentences that fire it; None of a style or a construction, or a marker text."""
    attack = attack_named(row.attack or "")
    target = row.target or ""
    if not isinstance(attack, Insertion) or not row.trigger or not target.isdecimal():
        return None
    whole = (" ".join(row.trigger),) if isinstance(attack, Countered) else ()
    return Trigger((*whole, *row.trigger), int(target))


def told_by(row: Row) -> Figures:
    """What a manifest says of an adapter."""
    return Figures(
        accuracy=_share(row.clean_accuracy, row.clean_n),
        fires=_share(row.asr, row.asr_n),
        without=_share(row.missed_rate, row.asr_n),
    )


def _share(rate: float | None, n: int | None) -> Share | None:
    return None if rate is None or n is None else Share(hits=round(rate * n), n=n)


@lru_cache(maxsize=8)
def _pool(dataset: str, data: Path, split: Split, test_share: float) -> tuple[Example, ...]:
    return tuple(pool(training_rows(dataset, data=data), split, test_share))
