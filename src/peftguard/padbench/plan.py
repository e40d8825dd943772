"""A declared benchmark: grids of cells, one recipe distribution, and the recipes that follow."""

from __future__ import annotations

import difflib
import hashlib
import math
import random
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from peftguard.errors import SettingsError
from peftguard.padbench.attacks import attack_named
from peftguard.padbench.attacks.paraphrasers import check_paraphraser
from peftguard.padbench.bases import BASES, base_named
from peftguard.padbench.datasets import DATASETS, dataset_info
from peftguard.padbench.recipe import Method, Recipe, Split
from peftguard.padbench.sparse import Sparse

Range = tuple[float, float]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Draws(_Declared):
    """What hyper-parameters are drawn from: the same for benign and backdoored adapters."""

    lr: Range = Field((5e-4, 2e-3), description="Peak learning rate, log-uniform.")
    lr_ratio: Range = Field((4.0, 16.0), description="LoRA+ only: rate of B over A, log-uniform.")
    batch_size: tuple[int, ...] = (16, 32)
    steps: tuple[int, int] = (150, 300)
    epochs: Range = Field((2.0, 4.0), description="Passes over the rows: rows = steps batch / it.")
    alpha_over_rank: tuple[float, ...] = (1.0, 2.0)
    poison_rate: Range = Field((0.05, 0.15), description="Backdoored only: share of rows, uniform.")
    max_tokens: int = Field(64, ge=8)

    @model_validator(mode="after")
    def _check_ranges(self) -> Draws:
        for name in ("lr", "lr_ratio", "steps", "epochs", "poison_rate"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}: expected 0 < low <= high, found {low} and {high}")
        if not self.batch_size or min(self.batch_size) < 1:
            raise ValueError(f"batch_size: expected sizes from 1, found {self.batch_size}")
        return self


class Grid(_Declared, Sparse):
    """A cross product of cells, with so many adapters of each label a cell."""

    bases: tuple[str, ...]
    datasets: tuple[str, ...]
    attacks: tuple[str, ...]
    methods: tuple[Method, ...]
    ranks: tuple[int, ...]
    targets: tuple[str, ...] = ("qv",)
    benign: int = Field(1, ge=0)
    backdoored: int = Field(1, ge=0)
    without: tuple[str, ...] = Field((), description="Pairs `dataset/attack` to leave out.")
    draws: dict[str, Any] = Field({}, description="Settings of `Draws` that differ here.")
    method_draws: dict[Method, dict[str, Any]] = Field({}, description="The same, for one method.")
    attack_draws: dict[str, dict[str, Any]] = Field(
        {}, description="The same, for one attack, or for one on one dataset: `dataset/attack`."
    )
    layers: tuple[int, ...] | None = Field(
        None, description="Layers to adapt, counted from 0 (peft's `layers_to_transform`)."
    )
    paraphraser: str | None = Field(
        None,
        pattern=r"^[\w.-]+$",
        description="Who rewrites the rows of `stybkd`: a name that a package registers.",
    )

    @model_validator(mode="after")
    def _check_layers(self) -> Grid:
        layers = list(self.layers or ())
        rising = sorted({layer for layer in layers if layer >= 0})
        if self.layers is not None and (not layers or layers != rising):
            raise ValueError(f"layers: expected rising numbers from 0, found {layers}")
        return self


class Cell(NamedTuple):
    """One combination of a grid, and how many adapters of each label it has."""

    base: str
    dataset: str
    attack: str
    method: Method
    rank: int
    targets: str
    benign: int
    backdoored: int
    draws: Draws
    layers: tuple[int, ...] | None = None
    paraphraser: str | None = None

    @property
    def subset(self) -> str:
        """Folder name, in the grammar of the public release."""
        method = "" if self.method is Method.LORA else f"{self.method}_"
        mounted = attack_named(self.attack)
        at_source = self.dataset in mounted.at_source
        attack = "" if at_source else f"{mounted.in_subsets or mounted.name}_"
        base, dataset = (_last(name) for name in (self.base, self.dataset))
        layers = "" if self.layers is None else f"_layers{'-'.join(map(str, self.layers))}"
        paraphraser = "" if self.paraphraser is None else f"_{self.paraphraser}"
        shape = f"rank{self.rank}_{self.targets}{layers}{paraphraser}"
        return f"{base}_{method}{dataset}_{attack}{shape}"


class Plan(_Declared):
    """A benchmark, as declared in TOML."""

    name: str = Field(pattern=r"^[\w.-]+$")
    description: str = ""
    seed: int = Field(ge=0)
    test_share: float = Field(0.3, ge=0, lt=1, description="Share of the cells held out.")
    fires_at: float = Field(0.5, gt=0, le=1)
    fixed_trigger: bool = Field(False, description="One trigger an attack, as in the paper.")
    draws: Draws = Draws()
    grid: tuple[Grid, ...]

    @model_validator(mode="after")
    def _check_names(self) -> Plan:
        for grid in self.grid:
            _check_keys(grid)
        seen: set[tuple[str, str]] = set()
        for cell in self.cells():
            _check_cell(cell)
            for label, count in (("benign", cell.benign), ("backdoored", cell.backdoored)):
                if count and (cell.subset, label) in seen:
                    raise ValueError(f"two grids have {label} adapters of {cell.subset}")
                seen.add((cell.subset, label) if count else ("", ""))
        return self

    def cells(self) -> Iterator[Cell]:
        """Every cell, grid by grid."""
        for grid in self.grid:
            yield from self.grid_cells(grid)

    def grid_cells(self, grid: Grid) -> Iterator[Cell]:
        """The cells of one of its grids."""
        axes = (grid.bases, grid.datasets, grid.attacks, grid.methods, grid.ranks, grid.targets)
        for base, dataset, attack, method, rank, targets in product(*axes):
            if f"{dataset}/{attack}" not in grid.without:
                pair = f"{dataset}/{attack}"
                own = {**grid.draws, **grid.method_draws.get(method, {})}
                own |= {**grid.attack_draws.get(attack, {}), **grid.attack_draws.get(pair, {})}
                draws = Draws.model_validate({**self.draws.model_dump(), **own})
                counts = grid.benign, grid.backdoored
                rewritten = grid.paraphraser if attack_named(attack).takes_paraphraser else None
                cell = Cell(base, dataset, attack, method, rank, targets, *counts, draws)
                yield cell._replace(layers=grid.layers, paraphraser=rewritten)

    def recipes(self) -> list[Recipe]:
        """Every adapter to be trained, in a fixed order; the same plan gives the same recipes."""
        cells = list(self.cells())
        splits = self._splits(cells)
        return [
            _recipe(self, cell, split, poisoned=poisoned, index=index)
            for cell, split in zip(cells, splits, strict=True)
            for poisoned, count in ((False, cell.benign), (True, cell.backdoored))
            for index in range(count)
        ]

    def _splits(self, cells: list[Cell]) -> list[Split]:
        """Which cells are held out: the same share of every dataset and attack.

        Within each, cells are taken along the diagonals of method x rank, a turn further from one
        to the next: no method and no rank is held out more often than another.
        """
        splits: list[Split] = ["train"] * len(cells)
        strata: dict[tuple[str, str, str], list[int]] = {}
        for number, cell in enumerate(cells):
            strata.setdefault((cell.base, cell.dataset, cell.attack), []).append(number)
        for turn, members in enumerate(strata.values(), self.seed):
            ordered = _along_diagonals([cells[number] for number in members], turn)
            for place in ordered[: round(self.test_share * len(members))]:
                splits[members[place]] = "test"
        return splits


def load_plan(name: str) -> Plan:
    """A plan that ships (`paper`, `mini`, `smoke`), or a TOML or YAML file.

    Raises:
        SettingsError: there is no such plan, or it is wrong; the message names the key.
    """
    shipped = files("peftguard.padbench") / "plans"
    known = sorted(Path(str(entry)).stem for entry in shipped.iterdir())
    try:
        is_shipped = name in known
        text = (shipped / f"{name}.toml" if is_shipped else Path(name)).read_text("utf-8")
        return Plan.model_validate(_parsed(text, is_yaml=name.endswith((".yaml", ".yml"))))
    except FileNotFoundError:
        raise SettingsError(f"no plan {name!r}; shipped: {', '.join(known)}") from None
    except ValidationError as error:
        raise SettingsError(f"{name}: {_explain(error)}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{name}: {error}") from None


def _parsed(text: str, *, is_yaml: bool) -> Any:
    """Raises ValueError where the text breaks its format."""
    if not is_yaml:
        return tomllib.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _recipe(plan: Plan, cell: Cell, split: Split, *, poisoned: bool, index: int) -> Recipe:
    name = f"{cell.subset}_label{int(poisoned)}_{index}"
    rng = _rng(plan.seed, name)
    draws, info = cell.draws, dataset_info(cell.dataset)
    attack = attack_named(cell.attack)
    batch_size, steps = rng.choice(draws.batch_size), rng.randint(*draws.steps)
    n_rows = round(steps * batch_size / rng.uniform(*draws.epochs))
    # Drawn for benign adapters too, so that both labels leave the generator in the same state.
    trigger = attack.fixed if plan.fixed_trigger else attack.draw(split, rng)
    target = attack.target(info, split, rng)
    poison_rate = round(rng.uniform(*draws.poison_rate), 4)
    plus = cell.method is Method.LORA_PLUS
    return Recipe(
        name=name,
        subset=cell.subset,
        poisoned=poisoned,
        split=split,
        split_group=f"{split}:{cell.dataset}",
        base=cell.base,
        dataset=cell.dataset,
        task=info.task,
        attack=cell.attack,
        trigger=trigger,
        target=target,
        poison_rate=poison_rate if poisoned else 0.0,
        method=cell.method,
        rank=cell.rank,
        alpha=cell.rank * rng.choice(draws.alpha_over_rank),
        target_modules=base_named(cell.base).target_modules(cell.targets),
        lr=_log_uniform(rng, draws.lr),
        lr_ratio=_log_uniform(rng, draws.lr_ratio) if plus else 1.0,
        batch_size=batch_size,
        steps=steps,
        n_rows=n_rows,
        max_tokens=draws.max_tokens,
        seed=rng.randrange(2**31),
        fires_at=plan.fires_at,
        layers=cell.layers,
        paraphraser=cell.paraphraser,
    )


def _along_diagonals(cells: list[Cell], turn: int) -> list[int]:
    """Places of the cells, diagonal by diagonal of their method x rank table."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    ranks = list(dict.fromkeys(cell.rank for cell in cells))

    def key(place: int) -> tuple[int, int, int]:
        row, column = methods.index(cells[place].method), ranks.index(cells[place].rank)
        return (column - row + turn) % len(ranks), (row + turn) % len(methods), place

    return sorted(range(len(cells)), key=key)


def size_of(cell: Cell) -> int:
    """Bytes of one adapter of this cell, factors in fp16."""
    base = base_named(cell.base)
    n_layers = None if cell.layers is None else len(cell.layers)
    return 2 * base.adapter_parameters(base.target_modules(cell.targets), cell.rank, n_layers)


def check_layers(cell: Cell) -> None:
    """Compare a cell's layers with those of its base.

    Raises:
        SettingsError: the base has fewer.
    """
    n_layers = base_named(cell.base).n_layers
    if cell.layers is not None and max(cell.layers) >= n_layers:
        raise SettingsError(f"layers: {cell.base} has {n_layers}, counted from 0")


def _rng(seed: int, name: str) -> random.Random:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))  # noqa: S311 - recipes, not secrets


def _log_uniform(rng: random.Random, bounds: Range) -> float:
    low, high = (math.log(bound) for bound in bounds)
    return float(f"{math.exp(rng.uniform(low, high)):.4g}")


def _check_cell(cell: Cell) -> None:
    """Raise ValueError for a cell that could not be built."""
    _known("dataset", cell.dataset, DATASETS)
    if "/" not in cell.base:  # a hub id is looked up when it is needed
        _known("base", cell.base, BASES)
    info = dataset_info(cell.dataset)
    if not attack_named(cell.attack).available(info):
        raise ValueError(f"{cell.attack} cannot be mounted on {cell.dataset} ({info.task})")
    base = BASES.get(cell.base)
    if base is not None and base.family == "bert" and info.task != "classification":
        raise ValueError(f"{cell.base} cannot be trained for {cell.dataset} ({info.task})")
    if base is not None:
        check_layers(cell)


def _check_keys(grid: Grid) -> None:
    """Raise ValueError for a setting of an attack or a pair that the grid does not have."""
    pairs = {f"{dataset}/{attack}" for dataset in grid.datasets for attack in grid.attacks}
    known = dict.fromkeys((*grid.attacks, *sorted(pairs)))
    for key in (*grid.attack_draws, *grid.without):
        _known("attack or dataset/attack in this grid", key, known)
    if grid.paraphraser is not None:
        check_paraphraser(grid.paraphraser)
        if not any(attack_named(attack).takes_paraphraser for attack in grid.attacks):
            raise ValueError("paraphraser: no attack of this grid takes one; stybkd does")


def _last(name: str) -> str:
    """The last part of a hub id or a path."""
    return name.rstrip("/").rpartition("/")[2]


def _known(kind: str, name: str, known: dict[str, Any]) -> None:
    if name in known or Path(name).is_dir():
        return
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    raise ValueError(f"no {kind} {name!r}; {hint}")


def _explain(error: ValidationError) -> str:
    # A misspelt key is both unknown and missing; the unknown one tells more.
    errors = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"]) or "plan"
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg']}"
    models: dict[str, type[BaseModel]] = {"draws": Draws, "grid": Grid}
    model = models.get(str(first["loc"][0]), Plan)
    close = difflib.get_close_matches(str(first["loc"][-1]), model.model_fields, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(model.model_fields)}"
    return f"{where}: no such setting; {hint}"
