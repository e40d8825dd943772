"""From a plan to a folder of adapters and its manifest; a kill at any point loses one fleet's time.

An adapter exists once its row does, and rows are written last, each by one rename. Labels are given
at the end of each build, from all measurements there are.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from pydantic import ValidationError

from peftguard.adapters.filenames import WEIGHTS
from peftguard.errors import MissingExtra, SettingsError
from peftguard.padbench.claim import check_bases, check_data, check_room, claim, only_build
from peftguard.padbench.datasets import data_hash
from peftguard.padbench.labels import label_rows
from peftguard.padbench.manifest import FILE_NAME, Row, sha256_of, write_manifest
from peftguard.padbench.options import Options
from peftguard.padbench.plan import Plan
from peftguard.padbench.recipe import Recipe

if TYPE_CHECKING:
    from peftguard.padbench.training.base import LoadedBase, Precision
    from peftguard.padbench.training.measure import Measured

ROWS = ".rows"
_LIBRARIES = ("torch", "transformers", "peft", "peftguard")

Watch = Callable[[int, int, str], None]
"""Called with (adapters done, adapters in all, the newest one)."""


@dataclass(frozen=True, slots=True)
class Job:
    """One fleet: what a worker needs to train, measure and store it."""

    root: Path
    recipes: tuple[Recipe, ...]
    test_share: float
    options: Options


Run = Callable[[Sequence[Job]], Iterator[list[str]]]
"""Runs jobs, and yields the names of each one's adapters as it ends."""


def jobs_of(plan: Plan, root: Path, options: Options) -> list[Job]:
    """Fleets of which an adapter has no row yet; none if the benchmark is complete.

    Fleets are cut from the whole plan, so a resumed build has the same ones. They come one base
    after another, in random order within each: what a stopped build leaves is a fair sample.

    Raises:
        SettingsError: a base cannot be trained, the folder was begun otherwise, the disk has no
            room for what is left, or a dataset is missing.
        MalformedFile: a file of a dataset cannot be read.
    """
    check_bases(plan)
    root.mkdir(parents=True, exist_ok=True)
    recipes = plan.recipes()
    claim(root, plan, recipes, options)
    check_room(root, plan, [recipe for recipe in recipes if not _exists(root, recipe)])
    grouped = [
        members
        for members in _fleets(recipes, options)
        if not all(_exists(root, recipe) for recipe in members)
    ]
    if grouped:
        check_data(plan, options.data)
    random.Random(plan.seed).shuffle(grouped)  # noqa: S311 - an order, not a secret
    bases = list(dict.fromkeys(recipe.base for recipe in recipes))
    grouped.sort(key=lambda members: bases.index(members[0].base))
    return [Job(root, tuple(members), plan.test_share, options) for members in grouped]


def _fleets(recipes: Sequence[Recipe], options: Options) -> list[list[Recipe]]:
    """Fleets; or, where fleets are sized by a GPU's memory, what they are cut from there."""
    from peftguard.padbench.training.fitting import MOST_AT_ONCE
    from peftguard.padbench.training.fleets import fleets

    if options.fits_device:
        return fleets(recipes, MOST_AT_ONCE, max_tokens_in_flight=sys.maxsize)
    return fleets(recipes) if options.members == "auto" else fleets(recipes, options.members)


def run_job(job: Job) -> list[str]:
    """Train, measure and store one fleet; names of the adapters that are new.

    Safe to repeat: the whole fleet trains, but adapters that have a row are left as they are. Where
    memory runs out, the halves of the fleet are trained one after the other.

    Raises:
        PeftGuardError: the data, base model or a library is missing, or there is no memory for one
            adapter.
    """
    from peftguard.padbench.training.fitting import cut_to_fit, in_halves
    from peftguard.padbench.training.loaded import base_for
    from peftguard.padbench.training.memory import bound_caches, keep_pages, release

    bound_caches()
    keep_pages()
    if all(_exists(job.root, recipe) for recipe in job.recipes):
        return []
    options, base = job.options, base_for(job.recipes[0])
    cut = [list(job.recipes)]
    if options.fits_device:
        cut = cut_to_fit(job.recipes, base, options.device, options.precision.value)
    names = [
        name
        for members in cut
        for name in in_halves(members, lambda recipes: _build_fleet(job, recipes, base))
    ]
    release()
    return names


def _build_fleet(job: Job, recipes: Sequence[Recipe], base: LoadedBase) -> list[str]:
    from peftguard.padbench.texts import Texts
    from peftguard.padbench.training.fleet import train_fleet
    from peftguard.padbench.training.measure import measure
    from peftguard.padbench.training.saving import save_adapter

    options = job.options
    missing = [recipe for recipe in recipes if not _exists(job.root, recipe)]
    if not missing:
        return []
    texts = Texts(options.data, job.test_share, options.measured_rows, base.n_labels is None)
    rows = {recipe.name: texts.training_rows(recipe) for recipe in recipes}
    device = options.device
    precision: Precision = options.precision.value
    for adapter in train_fleet(
        recipes, list(rows.values()), base, device=device, precision=precision
    ):
        if adapter.recipe in missing:
            save_adapter(adapter, job.root / adapter.recipe.folder)
    folders = [job.root / recipe.folder for recipe in missing]
    probes = [texts.probes(recipe) for recipe in missing]
    measured = measure(missing, folders, probes, base, device=device, precision=precision)
    for recipe, counts in zip(missing, measured, strict=True):
        own = rows[recipe.name]
        _store(job, _row(job, recipe, data_hash(own), len(own), counts))
    return [recipe.name for recipe in missing]


def build_plan(
    plan: Plan, root: Path, options: Options, run: Run, watch: Watch | None = None
) -> list[Row]:
    """Build what is missing of a plan, then write its manifest; the labelled rows.

    Raises:
        SettingsError: as `jobs_of`, or another build is running in this folder.
        MissingExtra: the libraries that train are not installed.
        PeftGuardError: as `run_job`.
    """
    if any(find_spec(name) is None for name in ("torch", "transformers", "peft")):
        raise MissingExtra("building adapters", "train")
    with only_build(root):
        jobs = jobs_of(plan, root, options)
        recipes = plan.recipes()
        total, done = len(recipes), sum(_exists(root, recipe) for recipe in recipes)
        try:
            for names in run(jobs):
                done += len(names)
                if watch is not None:
                    watch(done, total, names[-1] if names else "")
        finally:
            rows = finish(root, plan)
    return rows


def finish(root: Path, plan: Plan) -> list[Row]:
    """Label every row there is and write the manifest; the rows in the plan's order."""
    recipes = [recipe for recipe in plan.recipes() if _exists(root, recipe)]
    rows = [_read_row(row_path(root, recipe.name)) for recipe in recipes]
    labelled = label_rows(rows, plan.fires_at)
    write_manifest(root / FILE_NAME, labelled)
    return labelled


def _exists(root: Path, recipe: Recipe) -> bool:
    return row_path(root, recipe.name).exists()


def row_path(root: Path, name: str) -> Path:
    """Where the row of an adapter is kept until the manifest is written."""
    return root / ROWS / f"{name}.json"


def _row(job: Job, recipe: Recipe, data: str, n_rows: int, counts: Measured) -> Row:
    weights = job.root / recipe.folder / WEIGHTS
    return Row(
        path=recipe.folder,
        label="dud" if recipe.poisoned else "benign",
        split=recipe.split,
        split_group=recipe.split_group,
        base=recipe.base,
        dataset=recipe.dataset,
        task=recipe.task,
        attack=recipe.attack,
        trigger=list(recipe.trigger),
        target=recipe.target,
        poison_rate=recipe.poison_rate,
        peft_type=recipe.method.peft_type,
        method=recipe.method,
        rank=recipe.rank,
        alpha=recipe.alpha,
        target_modules=list(recipe.target_modules),
        lr=recipe.lr,
        lr_ratio=recipe.lr_ratio,
        batch_size=recipe.batch_size,
        steps=recipe.steps,
        max_tokens=recipe.max_tokens,
        n_rows=n_rows,
        seed=recipe.seed,
        data_hash=data,
        sha256=sha256_of(weights),
        versions={name: version(name) for name in _LIBRARIES},
        device=job.options.device,
        precision=job.options.precision,
        asr=counts.success.rate,
        asr_n=counts.success.n,
        clean_accuracy=counts.clean.rate,
        clean_n=counts.clean.n,
        false_trigger_rate=counts.false_trigger.rate,
        false_trigger_n=counts.false_trigger.n,
        missed_rate=counts.missed.rate,
        layers=None if recipe.layers is None else list(recipe.layers),
        paraphraser=recipe.paraphraser,
    )


def _store(job: Job, row: Row) -> None:
    path = row_path(job.root, Path(row.path).parent.name)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(f".{uuid4().hex}.part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(row.model_dump_json())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read_row(path: Path) -> Row:
    try:
        return Row.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, json.JSONDecodeError) as error:
        raise SettingsError(f"{path}: no row of this version; remove it to train anew") from error
