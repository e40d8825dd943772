"""The datasets adapters are trained on: by hub id, or from folders; and who gets which rows."""

from __future__ import annotations

import difflib
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peftguard.errors import MalformedFile, MissingExtra, SettingsError
from peftguard.padbench.datafolder import (
    DataSplit,
    infer_task,
    kin,
    normalised,
    read_folder,
    share_of,
)
from peftguard.padbench.examples import Example, parse_row, poisoned_at_source
from peftguard.padbench.recipe import Recipe, Split, Task

__all__ = [
    "DATASETS",
    "DataSplit",
    "DatasetInfo",
    "Example",
    "data_hash",
    "dataset_info",
    "held_out",
    "load_dataset",
    "pool",
    "stream",
    "subset",
    "training_rows",
]

_OWN_SHARE = 0.8
"""Most of its pool that one adapter gets, so that no two adapters have the same rows."""
_USUAL = {"train": "train", "dev": "validation", "test": "test"}
_CUT = {"train": "train[:80%]", "test": "train[80%:]"}
"""For datasets that the hub has no test rows of."""


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset: its task, its labels in order, and where it is."""

    name: str
    task: Task
    labels: tuple[str, ...] = ()
    hub_id: str | None = None
    hub_config: str | None = None
    hub_splits: dict[str, str] = field(default_factory=lambda: _USUAL)
    folder: str | None = None
    """Name of its folder where that differs."""
    targets: tuple[int, ...] = ()
    """Labels with rows enough to be an attack's target; empty: all."""
    poisoned_at_source: bool = False
    """Some rows come with a backdoor's trigger and payload; those are never used."""

    @property
    def target_labels(self) -> tuple[int, ...]:
        """Labels that an attack may aim at."""
        return self.targets or tuple(range(len(self.labels)))


def _classification(name: str, labels: str, hub_id: str, **more: object) -> DatasetInfo:
    return DatasetInfo(name, "classification", tuple(labels.split()), hub_id, **more)  # type: ignore[arg-type]


DATASETS = {
    info.name: info
    for info in (
        _classification(
            "sst2",
            "negative positive",
            "stanfordnlp/sst2",
            # The hub's test rows have no labels.
            hub_splits={"train": "train", "test": "validation"},
        ),
        _classification(
            "ag_news", "world sports business sci/tech", "fancyzhx/ag_news", folder="agnews"
        ),
        _classification("imdb", "negative positive", "stanfordnlp/imdb"),
        _classification(
            "offenseval", "other offensive", "cardiffnlp/tweet_eval", hub_config="offensive"
        ),
        _classification("cr", "negative positive", "SetFit/SentEval-CR"),
        _classification(
            "davidson_toxic",
            "hate offensive neither",
            "tdavidson/hate_speech_offensive",
            hub_splits=_CUT,
            targets=(1, 2),
        ),
        DatasetInfo(
            "squad",
            "qa",
            hub_id="rajpurkar/squad_v2",
            hub_splits={"train": "train", "test": "validation"},
            folder="squad_xquad_en",
        ),
        DatasetInfo("instruct", "instruction", hub_id="tatsu-lab/alpaca", hub_splits=_CUT),
        # Ids as the paper's README links them; their columns and splits are unverified.
        DatasetInfo(
            "toxic_backdoors_alpaca",
            "instruction",
            hub_id="Baidicoot/toxic_backdoors_alpaca",
            hub_splits=_CUT,
            poisoned_at_source=True,
        ),
        DatasetInfo(
            "toxic_backdoors_hard",
            "instruction",
            hub_id="Baidicoot/toxic_backdoors_hard",
            hub_splits=_CUT,
            poisoned_at_source=True,
        ),
    )
}
"""Known datasets by name."""
_KNOWN = DATASETS | {info.folder: info for info in DATASETS.values() if info.folder}


def dataset_info(name: str) -> DatasetInfo:
    """A known dataset, or a folder's task and labels as its files show them.

    Raises:
        SettingsError: neither a known name nor a folder of rows.
        MalformedFile: a file of the folder cannot be read.
    """
    if name in _KNOWN:
        return _KNOWN[name]
    folder = Path(name)
    if not folder.is_dir():
        close = difflib.get_close_matches(name, _KNOWN, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(DATASETS)}"
        raise SettingsError(f"no dataset {name!r}; {hint}")
    task, counts = infer_task(folder)
    least = sum(counts) / (2 * len(counts)) if counts else 0
    return DatasetInfo(
        folder.resolve().name,
        task,
        tuple(str(label) for label in range(len(counts))),
        targets=tuple(label for label, count in enumerate(counts) if count >= least),
    )


def load_dataset(name: str, *, data: Path | None, split: DataSplit) -> list[Example]:
    """All rows of a split.

    Args:
        name: a known dataset or a folder.
        data: a folder with one folder a dataset; None: known datasets come from the hub.
        split: which rows.

    Raises:
        SettingsError: there is no such dataset, or it has no such rows.
        MalformedFile: a file of the folder cannot be read; the message names the line.
        LimitExceeded: a file of the folder is too large.
        MissingExtra: `datasets` is needed.
    """
    info = dataset_info(name)
    folder = _folder(name, info, data)
    if folder is None:
        return _from_hub(info, split)
    return read_folder(folder, info.task, split, marked=info.poisoned_at_source)


def held_out(name: str, *, data: Path | None) -> list[Example]:
    """Rows to measure on: the test rows, or the dev rows where there are no others.

    Raises:
        SettingsError, MalformedFile, LimitExceeded, MissingExtra: as `load_dataset`.
    """
    try:
        return load_dataset(name, data=data, split="test")
    except SettingsError:
        return load_dataset(name, data=data, split="dev")


def training_rows(name: str, *, data: Path | None) -> list[Example]:
    """Rows to train on: the training rows that have no text in common with a held-out row.

    Case and white space do not count; paraphrases do; of questions, the contexts are compared.

    Raises:
        SettingsError, MalformedFile, LimitExceeded, MissingExtra: as `load_dataset`.
    """
    measured = {text for row in held_out(name, data=data) for text in _texts(row)}
    rows = load_dataset(name, data=data, split="train")
    return [row for row in rows if measured.isdisjoint(_texts(row))]


def pool(examples: Iterable[Example], split: Split, test_share: float = 0.3) -> list[Example]:
    """The training rows that adapters of a split may have; no text is in both pools.

    Rows are divided by a hash of their text (questions: of their context), not by their order.
    """
    is_test = split == "test"
    return [row for row in examples if (share_of(f"pool/{kin(row)}") < test_share) == is_test]


def subset(recipe: Recipe, rows: Sequence[Example]) -> list[Example]:
    """The rows of one adapter: `recipe.n_rows` of its pool, labels in the pool's proportions.

    No adapter gets more than four fifths of its pool: the result may be shorter than `n_rows`.

    Raises:
        SettingsError: the pool is empty.
    """
    if not rows:
        raise SettingsError(f"{recipe.name}: no rows of {recipe.dataset} for its split")
    rng = stream(recipe, "subset")
    by_label: dict[int | None, list[Example]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    n_rows = min(recipe.n_rows, max(1, round(_OWN_SHARE * len(rows))))
    counts = _shares({label: len(members) for label, members in by_label.items()}, n_rows)
    drawn = [row for label, count in counts.items() for row in rng.sample(by_label[label], count)]
    rng.shuffle(drawn)
    return drawn


def stream(recipe: Recipe, purpose: str) -> random.Random:
    """A generator for one purpose of one recipe, the same in every process."""
    return random.Random(f"{recipe.seed}/{recipe.name}/{purpose}")  # noqa: S311 - not a secret


def data_hash(examples: Iterable[Example]) -> str:
    """SHA-256 over the rows' ids and texts, in order."""
    digest = hashlib.sha256()
    for row in examples:
        digest.update(json.dumps([row.id, row.text, row.completion]).encode() + b"\n")
    return digest.hexdigest()


def _texts(row: Example) -> set[str]:
    return {kin(row), *(normalised(text) for _, text in row.versions)}


def _shares(sizes: dict[int | None, int], total: int) -> dict[int | None, int]:
    """`total` divided in proportion to `sizes`, largest remainders first."""
    exact = {label: size * total / sum(sizes.values()) for label, size in sizes.items()}
    counts = {label: int(share) for label, share in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (counts[label] - exact[label], str(label)))
    for label in by_remainder[: total - sum(counts.values())]:
        counts[label] += 1
    return counts


def _folder(name: str, info: DatasetInfo, data: Path | None) -> Path | None:
    if name not in _KNOWN:
        return Path(name)
    if data is None:
        return None
    names = [info.name, *([info.folder] if info.folder else [])]
    folder = next((data / name for name in names if (data / name).is_dir()), None)
    if folder is None:
        raise SettingsError(f"{data}: no folder {' or '.join(names)}")
    return folder


def _from_hub(info: DatasetInfo, split: DataSplit) -> list[Example]:
    try:
        import datasets
    except ImportError:
        raise MissingExtra(f"dataset {info.hub_id}", "train") from None
    if split not in info.hub_splits:
        raise SettingsError(f"{info.name}: no {split} rows on the hub")
    try:
        rows = datasets.load_dataset(info.hub_id, info.hub_config, split=info.hub_splits[split])
    except Exception as error:  # the library raises errors of many libraries below it
        reason = str(error).partition("\n")[0]
        raise SettingsError(f"{info.hub_id}: cannot be loaded: {reason}") from error
    examples = []
    for number, row in enumerate(rows):
        try:
            if not (info.poisoned_at_source and poisoned_at_source(row)):
                examples.append(parse_row(row, f"{split}/{number}", info.task))
        except ValueError as error:
            raise MalformedFile(str(error), file=info.hub_id, key=f"row {number}") from None
    return examples
