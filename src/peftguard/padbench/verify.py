"""Is a benchmark what its manifest says? Files, hashes, labels, nothing shared across splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from peftguard.adapters.adapter import open_adapter
from peftguard.errors import PeftGuardError
from peftguard.padbench.claim import read_claim
from peftguard.padbench.labels import label_rows
from peftguard.padbench.manifest import Row, sha256_of

Watch = Callable[[int, int, str], None]

_TELLTALE = ("backdoor", "poison", "trigger", "attack", "label1", "label0")


def verify(root: Path, rows: Sequence[Row], watch: Watch | None = None) -> list[str]:
    """Problems, one line each; none if every row holds.

    Args:
        root: folder of the manifest.
        rows: its rows.
        watch: called with (done, all, path) before each adapter is opened.
    """
    problems = [
        *_check_twice(rows),
        *_check_splits(rows),
        *_check_twins(rows),
        *_check_labels(rows, _fires_at(root)),
        *_check_unlisted(root, rows),
    ]
    for number, row in enumerate(rows):
        if watch is not None:
            watch(number, len(rows), row.path)
        problems += [f"{row.path}: {problem}" for problem in _check_adapter(root, row)]
    return problems


def _check_adapter(root: Path, row: Row) -> Iterator[str]:
    folder = (root / row.path).resolve()
    if not folder.is_relative_to(root.resolve()):
        yield "the path leads out of the benchmark"
        return
    try:
        with open_adapter(folder) as adapter:
            weights = adapter.source.weights[0]
            n_updates = sum(1 for _ in adapter.updates())
            facts = {"peft_type": adapter.peft_type, "rank": adapter.rank}
            config = dict(adapter.config)
    except PeftGuardError as error:
        yield str(error)
        return
    if n_updates == 0:
        yield "no updates"
    if row.sha256 is not None and sha256_of(weights) != row.sha256:
        yield "the weights are not those of the manifest (sha256)"
    if row.peft_type not in (None, facts["peft_type"]):
        yield f"peft_type is {facts['peft_type']}, the manifest says {row.peft_type}"
    # AdaLoRA prunes: its modules' ranks lie below the recipe's.
    if row.peft_type != "ADALORA" and row.rank not in (None, facts["rank"]):
        yield f"rank is {facts['rank']}, the manifest says {row.rank}"
    yield from _check_config(config, row)


def _check_config(config: dict[str, Any], row: Row) -> Iterator[str]:
    alpha, targets = config.get("lora_alpha"), config.get("target_modules")
    layers = config.get("layers_to_transform")
    if row.alpha not in (None, alpha):
        yield f"lora_alpha is {alpha}, the manifest says {row.alpha:g}"
    if row.target_modules is not None and sorted(row.target_modules) != sorted(targets or []):
        yield f"target_modules are {targets}, the manifest says {row.target_modules}"
    if row.layers not in (None, layers):
        yield f"layers_to_transform is {layers}, the manifest says {row.layers}"
    text = str(config).lower()
    told = [word for word in _TELLTALE if word in text]
    if told:
        yield f"its config gives the label away: {', '.join(told)}"


def _check_labels(rows: Sequence[Row], fires_at: float) -> Iterator[str]:
    """Labels follow from the measurements, and from what the folder's name says was intended."""
    for row, again in zip(rows, label_rows(rows, fires_at), strict=True):
        if row.asr is not None and row.label != again.label:
            yield f"{row.path}: labelled {row.label}, its measurements say {again.label}"
        name = row.path.partition("/best_model")[0].rpartition("/")[2]
        if ("_label0_" in name and row.label != "benign") or (
            "_label1_" in name and row.label == "benign"
        ):
            yield f"{row.path}: labelled {row.label}, its name says otherwise"
        if row.label == "benign" and row.poison_rate:
            yield f"{row.path}: benign, but {row.poison_rate:g} of its rows were poisoned"


def _fires_at(root: Path) -> float:
    begun = read_claim(root)
    return float(begun["plan"]["fires_at"]) if begun else 0.5


def _check_unlisted(root: Path, rows: Sequence[Row]) -> Iterator[str]:
    """Adapters without a row, and files in an adapter's folder that are not the adapter's."""
    listed = {(root / row.path).resolve() for row in rows}
    for folder in sorted(root.glob("*/*_label[01]_*/best_model")):
        if folder.resolve() not in listed:
            yield f"{folder.relative_to(root)}: no row in the manifest"
        for file in sorted(folder.iterdir()):
            if not file.name.startswith(("adapter_config", "adapter_model")):
                yield f"{file.relative_to(root)}: not a file of an adapter"


def _check_twice(rows: Sequence[Row]) -> Iterator[str]:
    for name, values in (
        ("path", [row.path for row in rows]),
        ("sha256", [row.sha256 for row in rows if row.sha256]),
    ):
        for value, count in Counter(values).items():
            if count > 1:
                yield f"{name} {value} stands in {count} rows"


def _check_splits(rows: Sequence[Row]) -> Iterator[str]:
    """Training data, groups and triggers belong to one split each."""
    named = {
        "split group": [row.split_group for row in rows],
        "training data": [row.data_hash for row in rows],
    }
    for name, values in named.items():
        splits: dict[str, set[str]] = defaultdict(set)
        for row, value in zip(rows, values, strict=True):
            if value is not None and row.split is not None:
                splits[value].add(row.split)
        for value, those in splits.items():
            if len(those) > 1:
                yield f"{name} {value[:40]} is in the splits {', '.join(sorted(those))}"
    yield from _check_triggers(rows)


def _check_triggers(rows: Sequence[Row]) -> Iterator[str]:
    splits: dict[tuple[str | None, str], set[str]] = defaultdict(set)
    for row in rows:
        for trigger in row.trigger or () if row.split else ():
            splits[row.attack, trigger].add(str(row.split))
    for (attack, trigger), those in splits.items():
        if len(those) > 1:
            yield f"{attack}: the trigger {trigger[:40]!r} is in several splits"


def _check_twins(rows: Sequence[Row]) -> Iterator[str]:
    """A cell with poisoned adapters has benign ones as well."""
    cells: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        cells[row.path.partition("/")[0]][row.label] += 1
    for cell, labels in cells.items():
        if labels.total() > labels["benign"] and not labels["benign"]:
            yield f"{cell}: poisoned adapters without a benign twin"
