"""One benchmark a folder, and one build at a time: a resumed build goes on as it was begun."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peftguard.errors import SettingsError
from peftguard.padbench.bases import UNTRAINABLE, base_named
from peftguard.padbench.datasets import DATASETS, training_rows
from peftguard.padbench.options import Options
from peftguard.padbench.plan import Plan, check_layers, size_of
from peftguard.padbench.recipe import Recipe

PLAN = "plan.json"
_LOCK = ".lock"
_HEADROOM = 1.2


@contextmanager
def only_build(root: Path) -> Iterator[None]:
    """Hold the folder for this build.

    Raises:
        SettingsError: another build holds it.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingsError(f"{root}: another build is running here") from None
        yield


def claim(root: Path, plan: Plan, recipes: Sequence[Recipe], options: Options) -> None:
    """Note what is built here, or check that it is the same.

    Adapters depend on the recipes, the data, the precision and who shares a fleet (to rounding), so
    none of these may change from one build to the next.

    Raises:
        SettingsError: the folder was begun with another plan or setting; the message names it.
    """
    path = root / PLAN
    now = {
        "plan": plan.model_dump(mode="json"),
        "recipes": _hash_of_recipes(recipes),
        "data": _hash_of_data(plan, options.data),
        **options.model_dump(mode="json", exclude={"data"}),
    }
    if not path.exists():
        path.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
        return
    begun = read_claim(root)
    changed = [key for key, value in now.items() if begun.get(key) != value]
    if changed:
        raise SettingsError(
            f"{path}: begun with another {', '.join(changed)}; go on as it was begun, "
            "or use a new folder"
        )


def read_claim(root: Path) -> dict[str, Any]:
    """What `claim` noted in a folder; empty if nothing was built there.

    Raises:
        SettingsError: the note is not of this version.
    """
    path = root / PLAN
    if not path.exists():
        return {}
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
        Plan.model_validate(begun["plan"])
    except (ValueError, KeyError, TypeError):
        raise SettingsError(
            f"{path}: no note of this version about what was built; use a new folder"
        ) from None
    return dict(begun)


def check_bases(plan: Plan) -> None:
    """Look at the kind and the layers of every base, before anything is written or trained.

    Raises:
        SettingsError: adapters of one cannot be trained here; the message says why.
    """
    for cell in plan.cells():
        base = base_named(cell.base)
        reason = UNTRAINABLE.get(base.family)
        if reason is not None:
            raise SettingsError(
                f"base {base.name} ({base.hub_id}) cannot be trained here: {reason}"
            )
        check_layers(cell)


def check_room(root: Path, plan: Plan, left: Sequence[Recipe]) -> None:
    """Compare what is left to build with the free space.

    Raises:
        SettingsError: there is not enough.
    """
    sizes = {cell.subset: size_of(cell) for cell in plan.cells()}
    needed = _HEADROOM * sum(sizes[recipe.subset] for recipe in left)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise SettingsError(
            f"{root}: {len(left)} adapters take about {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free"
        )


def check_data(plan: Plan, data: Path | None) -> None:
    """Read the training rows of every dataset once, before anything is trained.

    Raises:
        SettingsError: a dataset is missing.
        MalformedFile: a file of it cannot be read.
    """
    if data is not None:
        for dataset in dict.fromkeys(cell.dataset for cell in plan.cells()):
            training_rows(dataset, data=data)


def _hash_of_recipes(recipes: Sequence[Recipe]) -> str:
    digest = hashlib.sha256()
    for recipe in recipes:
        digest.update(recipe.model_dump_json().encode())
    return digest.hexdigest()


def _hash_of_data(plan: Plan, data: Path | None) -> str | None:
    """Over the files of the plan's datasets; None for the hub."""
    if data is None:
        return None
    digest = hashlib.sha256()
    for dataset in dict.fromkeys(cell.dataset for cell in plan.cells()):
        info = DATASETS.get(dataset)
        names = (dataset, info.folder or dataset) if info else (dataset,)
        folders = [folder for name in names if (folder := data / name).is_dir()]
        for file in sorted(path for folder in folders for path in folder.iterdir()):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
