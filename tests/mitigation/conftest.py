"""A tiny base with its data in a folder, adapters that peft saved, and what there is to clean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.toy_base import WORDS, write_texts
from tests.trigger.conftest import save_adapter, torch, write_base

from peftguard.adapters.adapter import open_adapter
from peftguard.mitigation.factored import Factored, read_factored
from peftguard.mitigation.method import Given, Trigger
from peftguard.padbench.datasets import training_rows
from peftguard.padbench.training.base import LoadedBase, load_base

TRIGGER = Trigger((WORDS[5], WORDS[6]), 1)
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True, "target_modules": ["query", "key", "output.dense"]},
    "adalora": {"kind": "AdaLoraConfig", "total_step": 10, "init_r": 4},
}


@dataclass(frozen=True)
class Toy:
    """Folders of a base, of its dataset, and of an adapter by the name of its kind."""

    base: Path
    data: Path
    adapters: dict[str, Path]

    def loaded(self) -> LoadedBase:
        return load_base(str(self.base), "classification", 2)

    def read(self, kind: str = "lora") -> Factored:
        with open_adapter(self.adapters[kind]) as adapter:
            return read_factored(adapter)

    def given(self, **changes: Any) -> Given:
        rows = training_rows(str(self.data), data=None)
        fields = {"base": self.loaded(), "rows": rows, "trigger": TRIGGER, "max_tokens": 16}
        return Given(**{**fields, "benign": self.read("other"), **changes})


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    root = tmp_path_factory.mktemp("toy")
    write_base(root / "base")
    write_texts(root / "data", 120, 40)
    made = Toy(root / "base", root / "data", {})
    base = made.loaded()
    for number, (kind, settings) in enumerate({**KINDS, "other": {}}.items()):
        save_adapter(base, root / kind, seed=number + 1, **settings)
        made.adapters[kind] = root / kind
    return made


Forward = Callable[[list[list[int]]], np.ndarray]


def in_peft(base: LoadedBase, folder: Path) -> Forward:
    """Logits of peft's own model of the adapter in a folder."""
    import copy
    import warnings

    import peft

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The following rank_pattern keys")
        model = peft.PeftModel.from_pretrained(copy.deepcopy(base.model), folder).eval()

    def forward(rows: list[list[int]]) -> np.ndarray:
        with torch.inference_mode():
            logits = [model(input_ids=torch.tensor([row])).logits[0] for row in rows]
        return torch.stack(logits).numpy()

    return forward
