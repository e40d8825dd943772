"""Clean rows of a task, from a folder in a dataset's layout or from one file."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from peftguard.adapters.filenames import printable
from peftguard.adapters.jsonfile import read_json
from peftguard.errors import MalformedFile, SettingsError
from peftguard.limits import Limits
from peftguard.padbench.datafolder import kin, share_of
from peftguard.padbench.datasets import held_out, training_rows
from peftguard.padbench.examples import Example, parse_row, task_of
from peftguard.trigger.neutral import user_text

TRAINED_ON = 512
"""Most rows that are trained on."""
MEASURED = 400
"""Most rows that are measured on."""
_HELD_OUT = 0.3


@dataclass(frozen=True, slots=True)
class CleanRows:
    """Rows to train on, and others to measure on."""

    training: list[Example]
    held_out: list[Example]

    def check_labels(self, n_classes: int) -> None:
        """Refuse rows that are not for a classifier of so many classes.

        Raises:
            SettingsError: a row has no label, or one beyond them.
        """
        for row in (*self.training, *self.held_out):
            if row.label is None or row.label >= n_classes:
                raise SettingsError(
                    f"--data: the row {printable(row.id)} is not for this adapter; "
                    f"expected a label from 0 to {n_classes - 1}; found {row.label}"
                )


def read_clean_rows(path: Path, seed: int) -> CleanRows:
    """A random part of the rows of a folder (`train`, `test`), or of one file divided by hash.

    Args:
        path: a folder as of a dataset, or a `.jsonl` file of {"text", "label"} or
            {"prompt", "completion"}.
        seed: of the draw.

    Raises:
        TargetNotFound: there is nothing.
        SettingsError: there are no rows for one of the two.
        MalformedFile: a row cannot be read; the message names the line.
        LimitExceeded: a file is too large.
    """
    if path.is_dir():
        name = str(path.resolve())
        training, measured = training_rows(name, data=None), held_out(name, data=None)
    else:
        rows = _rows_of_file(path)
        measured = [row for row in rows if share_of(f"held out/{kin(row)}") < _HELD_OUT]
        training = [row for row in rows if share_of(f"held out/{kin(row)}") >= _HELD_OUT]
    if not training or not measured:
        raise SettingsError(f"{path}: too few rows to train on some and to measure on others")
    return CleanRows(drawn(training, TRAINED_ON, seed), drawn(measured, MEASURED, seed))


def drawn(rows: list[Example], count: int, seed: int) -> list[Example]:
    """At most so many rows, in random order."""
    rng = random.Random(f"{seed}/clean rows")  # noqa: S311 - not a secret
    return rng.sample(rows, min(count, len(rows)))


def _rows_of_file(path: Path) -> list[Example]:
    file, limits = printable(path.name), Limits()
    rows: list[Example] = []
    for number, line in enumerate(user_text(path).splitlines(), 1):
        if not line.strip():
            continue
        row = read_json(line.encode(), file=f"{file}, line {number}", limits=limits)
        try:
            rows.append(parse_row(row, str(number), task_of(row) or "classification"))
        except ValueError as error:
            raise MalformedFile(str(error), file=file, key=f"line {number}") from None
    return rows
