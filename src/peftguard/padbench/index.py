"""A manifest for a folder of the public release, from its names and its adapters' own configs.

Layout: `<subset>/<subset>_label{0|1}_{index}/best_model/`, 0 benign, 1 backdoored. A subset is
`{base}[_{method}]_{dataset}[_{attack}]_rank{r}_{targets}`, with the release's spellings `RIPPLE`,
`stybkd` and `stykbd`. The rank in the name is not trusted: one set named rank16 holds adapters of
rank 256.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from peftguard.adapters.adapter import open_adapter
from peftguard.adapters.filenames import natural
from peftguard.errors import PeftGuardError, TargetNotFound
from peftguard.padbench.attacks import ATTACKS
from peftguard.padbench.bases import BASES
from peftguard.padbench.datasets import DATASETS
from peftguard.padbench.manifest import Row, sha256_of
from peftguard.padbench.recipe import Method

_ADAPTER = re.compile(r"(?P<subset>.+)_label(?P<label>[01])_(?P<index>\d+)", re.ASCII)
_RANK = re.compile(r"_rank(?P<rank>\d+)(?:_(?P<targets>\w+))?$", re.ASCII)
_SPELLINGS = {
    "stykbd": "stybkd",
    "ripple": "RIPPLE",
    "ripples": "RIPPLE",
    "insert_sent": "insertsent",
}
_DATASETS = {"agnews": "ag_news", "squad_v2": "squad"}


@dataclass(frozen=True, slots=True)
class Named:
    """What the name of a subset says."""

    base: str | None
    method: Method
    dataset: str | None
    attack: str | None


@dataclass(slots=True)
class Index:
    """Rows of the adapters that could be read, and a line for each that could not."""

    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def index_release(root: Path) -> Index:
    """Read every adapter folder below `root`; a missing or corrupt one is a problem, not an end.

    Raises:
        TargetNotFound: no folder below `root` is named as in the release.
    """
    index = Index()
    found = False
    for folder, match in _folders(root):
        found = True
        try:
            index.rows.append(_row(root, folder, match))
        except (PeftGuardError, OSError) as error:
            index.problems.append(f"{folder.relative_to(root)}: {error}")
    if not found:
        raise TargetNotFound(
            "no adapters of the release", file=str(root), expected="<subset>_label{0|1}_<index>"
        )
    return index


def parse_subset(name: str) -> Named:
    """Base, method, dataset and attack of a subset's name, as far as they are known."""
    match = _RANK.search(name)
    left = name[: match.start()] if match else name
    base = _leading(left, BASES)
    left = left.removeprefix(base).strip("_") if base else left
    method = _leading(left, [m.value for m in Method if m is not Method.LORA])
    left = left.removeprefix(method).strip("_") if method else left
    spelt = _leading(left, (*DATASETS, *_DATASETS))
    dataset = _DATASETS.get(spelt or "", spelt)
    rest = left.removeprefix(spelt).strip("_") if spelt else ""
    attack = _SPELLINGS.get(rest.lower(), rest)
    if (dataset, attack) == ("squad", "insertsent"):
        attack = "squad_sentence"
    if not attack and dataset:
        attack = next((a.name for a in ATTACKS.values() if dataset in a.at_source), "")
    known = attack if attack in ATTACKS else None
    return Named(base, Method(method) if method else Method.LORA, dataset, known)


def _folders(root: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    for folder in sorted(root.rglob("*_label[01]_*"), key=lambda path: natural(str(path))):
        match = _ADAPTER.fullmatch(folder.name)
        if match is not None and folder.is_dir() and not folder.is_symlink():
            yield folder, match


def _row(root: Path, folder: Path, match: re.Match[str]) -> Row:
    best = folder / "best_model"
    where = best if best.is_dir() else folder
    named = parse_subset(match["subset"])
    with open_adapter(where) as adapter:
        weights = adapter.source.weights[0]
        info = DATASETS.get(named.dataset or "")
        targets = adapter.config.get("target_modules")
        return Row(
            path=str(where.relative_to(root)),
            label="backdoored" if match["label"] == "1" else "benign",
            base=named.base or adapter.base_model,
            dataset=named.dataset,
            task=info.task if info else None,
            attack=named.attack,
            peft_type=adapter.peft_type,
            method=named.method,
            rank=adapter.rank,
            alpha=_number(adapter.config.get("lora_alpha")),
            target_modules=sorted(map(str, targets)) if isinstance(targets, list) else None,
            sha256=sha256_of(weights),
        )


def _leading(text: str, names: object) -> str | None:
    """The longest name that `text` starts with, whole words only, case ignored."""
    matches = [
        name
        for name in names  # type: ignore[attr-defined]
        if text.lower() == name.lower() or text.lower().startswith(f"{name.lower()}_")
    ]
    return max(matches, key=len, default=None)


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None  # type: ignore[arg-type]
