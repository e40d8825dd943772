"""Every attack on every dataset of a real data folder, where there is one."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from peftguard.padbench.attacks import ATTACKS
from peftguard.padbench.datasets import (
    DATASETS,
    dataset_info,
    held_out,
    pool,
    subset,
    training_rows,
)
from peftguard.padbench.recipe import Split

DATA = Path(os.environ.get("PEFTGUARD_DATA", Path(__file__).parents[4] / "shared" / "data"))
FOLDERS = [
    name
    for name, info in DATASETS.items()
    if (DATA / name).is_dir() or (info.folder and (DATA / info.folder).is_dir())
]
SPLITS: tuple[Split, ...] = ("train", "test")


@pytest.mark.skipif(not FOLDERS, reason="no data folder; set PEFTGUARD_DATA")
@pytest.mark.parametrize("name", FOLDERS)
def test_every_attack_has_rows_enough(make_recipe: Any, name: str) -> None:
    info = dataset_info(name)
    train, test = training_rows(name, data=DATA), held_out(name, data=DATA)
    assert not {row.id for row in train} & {row.id for row in test}
    assert not {row.text for row in train} & {row.text for row in test}
    test = random.Random(0).sample(test, min(2000, len(test)))
    for attack in ATTACKS.values():
        for split in SPLITS if attack.available(info) else ():
            rng = random.Random(f"{name}/{attack.name}/{split}")
            fields = {"trigger": attack.draw(split, rng), "target": attack.target(info, split, rng)}
            more = {"dataset": name, "task": info.task, "attack": attack.name, "split": split}
            recipe = make_recipe(n_rows=2000, poison_rate=0.15, **fields, **more)
            rows = subset(recipe, pool(train, split))
            poisoned = [r for r in attack.poison(rows, recipe, rng) if r.poisoned]
            assert len(poisoned) == round(0.15 * len(rows))
            others = [row for row in test if not row.hits(recipe.target)]
            fired = [row for row in others if attack.triggered(row, recipe, rng)]
            near = [row for row in others if attack.lookalike(row, recipe, rng)]
            assert min(len(fired), len(near)) >= 100, (attack.name, split)
