"""One evasion over many adapters and strengths: written, judged and measured, one line each.

An attacked adapter exists once its line in `attacks.jsonl` does, so that a run that was stopped can
go on. `manifest.jsonl` is a benchmark's: the attacked adapters can be trained and tested on.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peftguard.adapters.filenames import WEIGHTS
from peftguard.adversary.arithmetic import change, together
from peftguard.adversary.evasion import Evasion, Means, Need, Parts
from peftguard.adversary.measuring import Measuring, Subject
from peftguard.adversary.rows import measured_again, recipe_of
from peftguard.adversary.target import Judged, Target, judged
from peftguard.adversary.victims import Victim, Victims, as_built
from peftguard.adversary.writing import Original, read_original, write_changed
from peftguard.detectors.trained import TrainedDetector
from peftguard.errors import SettingsError, UnsupportedAdapter
from peftguard.mitigation.factored import Factored
from peftguard.padbench.labels import benign_floors, label_row
from peftguard.padbench.manifest import FILE_NAME, Row, sha256_of, write_manifest

if TYPE_CHECKING:
    from peftguard.adversary.poisoned_task import PoisonedTask

LINES = "attacks.jsonl"
EXACT = 1e-5
"""Most that an exact symmetry may change an update by, of its norm: single precision, and room."""

Watch = Callable[[int, int, str], None]
"""Called with (done, all, name of what is next)."""


class Attacked(BaseModel):
    """One attacked adapter, or one part of it, as a line of `attacks.jsonl`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    original: str = Field(description="Its path in the benchmark, or its folder's name.")
    evasion: str
    strength: float
    seed: int
    part: int = Field(description="Which of the adapters that work together, from 0.")
    n_parts: int
    change: float = Field(description="|sum of parts - dW| / |dW| over all layers.")
    detector: str | None = Field(None, description="Name of the one that judged it.")
    score_before: float | None = None
    p_value_before: float | None = None
    score: float | None = None
    p_value: float | None = None
    uncovered: str | None = Field(None, description="Why a scan would not judge it.")
    asr: float | None = Field(None, description="Of all parts together.")
    clean_accuracy: float | None = Field(None, description="Of all parts together.")
    fires: bool | None = Field(None, description="All parts together; None if not measured.")
    row: Row


@dataclass(frozen=True, slots=True)
class Campaign:
    """What is done to each adapter.

    Args:
        evasion: how it hides.
        out: folder of the attacked ones.
        seed: of everything random.
        detector: the one to deceive, which also judges; None: nothing is judged.
        measuring: how they are measured; None: they are not.
        base: a folder or hub id in place of the base that the rows name.
    """

    evasion: Evasion
    out: Path
    seed: int = 0
    detector: TrainedDetector | None = None
    measuring: Measuring | None = None
    base: str | None = None

    def run(
        self, victims: Victims, strengths: Sequence[float], watch: Watch | None = None
    ) -> tuple[list[Attacked], dict[str, str]]:
        """Attack what has not been attacked yet, and write the manifest.

        Args:
            victims: whom.
            strengths: values of the evasion's strength.
            watch: called before each adapter.

        Returns:
            All lines of this campaign, and why adapters were left out, by name.

        Raises:
            SettingsError: the evasion needs what is not there; `out` lies in the benchmark.
            InputError: an adapter cannot be read.
        """
        self._check(victims)
        self.out.mkdir(parents=True, exist_ok=True)
        _end_last_line(self.out / LINES)
        known = {line.row.path: line for line in read_lines(self.out)}
        jobs = [(victim, strength) for victim in victims.chosen for strength in strengths]
        found: list[Attacked] = []
        skipped: dict[str, str] = {}
        try:
            for number, (victim, strength) in enumerate(jobs):
                if watch is not None:
                    watch(number, len(jobs), f"{strength:g} {victim.name}")
                found += self._one(victim, strength, victims, known, skipped)
        finally:
            lines = {line.row.path: line for line in read_lines(self.out)}
            write_manifest(self.out / FILE_NAME, [line.row for line in lines.values()])
        return found, skipped

    def folder(self, victim: Victim, strength: float, part: int, n_parts: int) -> str:
        """Where an attacked adapter goes, relative to `out`."""
        deceived = self.detector.training.name if self._aims and self.detector else ""
        name = "-".join(
            filter(None, (self.evasion.name, deceived, f"{strength:g}", f"s{self.seed}"))
        )
        return f"{name}/{victim.name}" + (f"/part{part}" if n_parts > 1 else "")

    @property
    def _aims(self) -> bool:
        return Need.DETECTOR in self.evasion.needs

    def _check(self, victims: Victims) -> None:
        if self._aims and self.detector is None:
            raise SettingsError(f"{self.evasion.name} needs a detector to deceive: give --detector")
        if Need.DATA in self.evasion.needs and self.measuring is None:
            raise SettingsError(
                f"{self.evasion.name} needs the rows it was trained on: give --data"
            )
        if Need.TWIN in self.evasion.needs and not any(one.twin for one in victims.chosen):
            raise SettingsError(f"{self.evasion.name} needs a benign twin: give --twin")
        here = self.out.resolve()
        if any(here.is_relative_to(one.folder.resolve()) for one in victims.chosen):
            raise SettingsError(f"{self.out}: lies in an adapter that is to be attacked")

    def _one(
        self,
        victim: Victim,
        strength: float,
        victims: Victims,
        known: dict[str, Attacked],
        skipped: dict[str, str],
    ) -> list[Attacked]:
        """Lines of one adapter at one strength: those there are, or new ones."""
        n_parts = 2 if self.folder(victim, strength, 0, 2) in known else 1
        there = [known.get(self.folder(victim, strength, at, n_parts)) for at in range(n_parts)]
        if all(line is not None and self._is_complete(line) for line in there):
            return [line for line in there if line is not None]
        if Need.TWIN in self.evasion.needs and victim.twin is None:
            skipped[victim.name] = "the benchmark has no benign twin of it"
            return []
        try:
            lines = self._attacked(victim, strength, victims)
        except UnsupportedAdapter as error:
            skipped[victim.name] = str(error)
            return []
        with (self.out / LINES).open("a", encoding="utf-8") as file:
            file.writelines(f"{line.model_dump_json()}\n" for line in lines)
        return lines

    def _is_complete(self, line: Attacked) -> bool:
        """Whether it was judged and measured by all that is there now."""
        detector = self.detector.training.name if self.detector else None
        measured = self.measuring is None or line.asr is not None
        return measured and detector in (None, line.detector)

    def _attacked(self, victim: Victim, strength: float, victims: Victims) -> list[Attacked]:
        before = judged(self.detector, victim.folder) if self.detector else None
        original = read_original(victim.folder)
        parts = self.evasion.apply(
            original.factored, strength, self._means(victim, original, strength)
        )
        moved = change(original.factored, parts)
        if self.evasion.exact and moved > EXACT:
            raise SettingsError(
                f"{self.evasion.name} {strength:g}: changes the update by {moved:.1e} of its norm, "
                "in single precision no symmetry any more"
            )
        folders = [
            write_changed(part, original, self.out / self.folder(victim, strength, at, len(parts)))
            for at, part in enumerate(parts)
        ]
        whole = self._measured(victim, victims, together(parts))
        return [
            Attacked(
                original=victim.name,
                evasion=self.evasion.name,
                strength=strength,
                seed=self.seed,
                part=at,
                n_parts=len(parts),
                change=moved,
                **_judgement(self.detector, before, folders[at]),
                asr=whole.asr if whole else None,
                clean_accuracy=whole.clean_accuracy if whole else None,
                fires=self._fires(victim, whole),
                row=self._row(victim, victims, parts, at, folders[at], whole),
            )
            for at in range(len(parts))
        ]

    def _means(self, victim: Victim, original: Original, strength: float) -> Means:
        salt = zlib.crc32(f"{self.evasion.name} {strength:g} {victim.name}".encode())
        twin = None
        if Need.TWIN in self.evasion.needs and victim.twin is not None:
            twin = read_original(victim.twin).factored
        return Means(
            rng=np.random.default_rng([self.seed, salt]),
            twin=twin,
            target=Target(self.detector, original) if self.detector and self._aims else None,
            task=self._task(victim) if Need.DATA in self.evasion.needs else None,
        )

    def _task(self, victim: Victim) -> PoisonedTask | None:
        from peftguard.adversary.poisoned_task import PoisonedTask
        from peftguard.padbench.training.loaded import base_for

        if self.measuring is None or victim.row is None:
            return None
        recipe = recipe_of(victim.row, self.base)
        return PoisonedTask(recipe, self.measuring.texts(recipe), base_for(recipe))

    def _measured(self, victim: Victim, victims: Victims, adapter: Factored) -> Row | None:
        """The row as measured with this adapter; None where nothing is measured."""
        if self.measuring is None or victim.row is None:
            return None
        subject = Subject(adapter, recipe_of(victim.row, self.base))
        counts = self.measuring.measure([subject])[0]
        row = measured_again(victim.row, counts.clean, counts.success, counts.missed)
        fires_at = as_built(victims.root, "fires_at")
        return label_row(row, fires_at, benign_floors(victims.rows))

    def _fires(self, victim: Victim, whole: Row | None) -> bool | None:
        """As measured; an exact symmetry does what its original does."""
        row = whole or (victim.row if self.evasion.exact else None)
        return None if row is None else row.label == "backdoored"

    def _row(
        self,
        victim: Victim,
        victims: Victims,
        parts: Parts,
        at: int,
        folder: Path,
        whole: Row | None,
    ) -> Row:
        row = whole if len(parts) == 1 else self._measured(victim, victims, parts[at])
        row = row or _unmeasured(victim, keeps=self.evasion.exact)
        ranks = [layer.rank for layer in parts[at].layers.values()]
        own = {
            "path": folder.relative_to(self.out).as_posix(),
            "sha256": sha256_of(folder / WEIGHTS),
            "rank": row.rank if row.peft_type == "ADALORA" else max(ranks),
            "alpha": None,
        }
        return row.model_copy(update=own)


def read_lines(out: Path) -> Iterator[Attacked]:
    """Lines of all campaigns in a folder; the last may have been cut short by a kill."""
    with suppress(FileNotFoundError):
        for line in (out / LINES).read_text(encoding="utf-8").splitlines():
            with suppress(ValidationError):
                yield Attacked.model_validate_json(line)


def _end_last_line(path: Path) -> None:
    """What a kill cut short stays one broken line: the next one does not run into it."""
    with suppress(FileNotFoundError), path.open("r+b") as file:
        if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) and file.read() != b"\n":
            file.write(b"\n")


def _judgement(
    detector: TrainedDetector | None, before: Judged | None, folder: Path
) -> dict[str, object]:
    if detector is None or before is None:
        return {}
    now = judged(detector, folder)
    return {
        "detector": detector.training.name,
        "score_before": before.score,
        "p_value_before": before.p_value,
        "score": now.score,
        "p_value": now.p_value,
        "uncovered": now.uncovered,
    }


def _unmeasured(victim: Victim, *, keeps: bool) -> Row:
    """A row that claims nothing that was not measured.

    An exact symmetry has the function of its original, so that all that was measured of it holds.
    """
    row = victim.row or Row(path=victim.name, label="dud")
    if keeps or row.label == "benign":
        return row
    return measured_again(row, None, None, None).model_copy(update={"label": "dud"})
