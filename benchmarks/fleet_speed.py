"""Adapters an hour on MiniLM: a fleet against peft with transformers' Trainer, one by one.

Both train the same recipes on the same rows for the same steps, in turns so that a busy machine is
busy for both; the median round counts. Loading the base and reading the rows are not timed.

    python benchmarks/fleet_speed.py --data ../data --members 8 --steps 24 --json fleet.json
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from machine import machine, machine_line
from peftguard.padbench.bases import BASES
from peftguard.padbench.examples import Example
from peftguard.padbench.recipe import Method, Recipe
from peftguard.padbench.training.base import LoadedBase, fastest_precision, load_base
from peftguard.padbench.training.fleet import train_fleet
from peftguard.padbench.training.peft_config import peft_config

Rows = Sequence[Sequence[Example]]
FULL_STEPS = 200
"""Steps of the adapter that "an hour" counts."""


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    base = load_base("minilm", "classification", 2)
    recipes = [recipe(options, seed) for seed in range(options.members)]
    rows = [own_rows(options, seed) for seed in range(options.members)]
    seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for what, train in roads(options, recipes, rows, base).items():
            start = time.perf_counter()
            adapters = train()
            spent = time.perf_counter() - start
            seconds.setdefault(what, []).append(spent / adapters / options.steps)
    show(seconds)
    if options.json:
        options.json.write_text(json.dumps(record(seconds, options), indent=2), encoding="utf-8")


def roads(
    options: argparse.Namespace, recipes: Sequence[Recipe], rows: Rows, base: LoadedBase
) -> dict[str, Callable[[], int]]:
    """What is compared, by name; each trains some adapters and says how many."""

    def fleet(precision: Any) -> int:
        return len(train_fleet(recipes, rows, base, precision=precision))

    def trainer() -> int:
        for own, examples in list(zip(recipes, rows, strict=True))[: options.plain]:
            train_plainly(own, examples, base)
        return options.plain

    named: dict[str, Callable[[], int]] = {
        "peft + Trainer, one by one": trainer,
        f"fleet of {len(recipes)}, fp32": lambda: fleet("fp32"),
    }
    if fastest_precision() == "bf16":
        named[f"fleet of {len(recipes)}, bf16"] = lambda: fleet("bf16")
    return named


def train_plainly(own: Recipe, rows: Sequence[Example], base: LoadedBase) -> None:
    """What a script written for one adapter does, with the defaults of both libraries."""
    from peft import get_peft_model
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

    model = get_peft_model(copy.deepcopy(base.model), peft_config(own, task_type="SEQ_CLS"))
    tokens = [base.tokenizer(row.text, truncation=True, max_length=own.max_tokens) for row in rows]
    data = [{**one, "labels": row.label} for one, row in zip(tokens, rows, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=own.steps,
            per_device_train_batch_size=own.batch_size,
            learning_rate=own.lr,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=own.seed,
        )
        collator = DataCollatorWithPadding(base.tokenizer)
        trainer = Trainer(model, arguments, data_collator=collator, train_dataset=data)
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def recipe(options: argparse.Namespace, seed: int) -> Recipe:
    return Recipe(
        name=f"speed_label0_{seed}",
        subset="speed",
        poisoned=False,
        split="train",
        split_group="speed",
        base="minilm",
        dataset="sst2",
        task="classification",
        attack="RIPPLE",
        trigger=("cf",),
        target="1",
        poison_rate=0.0,
        method=Method(options.method),
        rank=options.rank,
        alpha=2.0 * options.rank,
        target_modules=BASES["minilm"].target_modules(options.targets),
        lr=1e-3,
        batch_size=options.batch_size,
        steps=options.steps,
        n_rows=options.rows,
        max_tokens=64,
        seed=seed,
    )


def own_rows(options: argparse.Namespace, seed: int) -> list[Example]:
    """Rows of SST-2, or words at random in numbers as there."""
    rng = random.Random(seed)
    if options.data:
        from peftguard.padbench.datasets import load_dataset

        return rng.sample(
            list(load_dataset("sst2", data=options.data, split="train")), options.rows
        )
    words = ["a", "the", "film", "story", "good", "bad", "dull", "bright", "plot", "scene", "slow"]
    return [
        Example(str(n), " ".join(rng.choices(words, k=rng.randint(3, 40))), rng.randint(0, 1))
        for n in range(options.rows)
    ]


def show(seconds: dict[str, list[float]]) -> None:
    table = Table("what", "ms a step and adapter", "min - max", "adapters an hour", "x Trainer")
    plain = median(next(iter(seconds.values())))
    for what, runs in seconds.items():
        middle = median(runs)
        table.add_row(
            what,
            f"{1e3 * middle:.0f}",
            f"{1e3 * min(runs):.0f} - {1e3 * max(runs):.0f}",
            f"{3600 / (middle * FULL_STEPS):.0f}",
            f"{plain / middle:.1f}",
        )
    console = Console()
    console.print(table)
    console.print(f"An adapter has {FULL_STEPS} steps. {machine_line()}", highlight=False)


def record(seconds: dict[str, list[float]], options: argparse.Namespace) -> dict[str, Any]:
    settings = {name: str(value) for name, value in vars(options).items() if name != "data"}
    return {
        "question": "seconds a step and adapter",
        "data": "SST-2" if options.data else "synthetic",
        "settings": settings,
        "machine": machine() | {"torch": torch.__version__},
        "seconds": seconds,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with sst2/train.jsonl.gz")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--plain", type=int, default=1, help="adapters trained one by one a round")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--method", default="lora", choices=[method.value for method in Method])
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", default="qv")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
