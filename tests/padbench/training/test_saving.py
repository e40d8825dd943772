from __future__ import annotations

import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import peftguard
from peftguard.padbench.recipe import Method

from .conftest import recipe, rows

torch = pytest.importorskip("torch")

from peftguard.padbench.training.base import LoadedBase  # noqa: E402
from peftguard.padbench.training.fleet import Fleet, train_fleet  # noqa: E402
from peftguard.padbench.training.layout import parts_of  # noqa: E402
from peftguard.padbench.training.peft_config import scale  # noqa: E402
from peftguard.padbench.training.saving import save_adapter, saved_tensors  # noqa: E402
from peftguard.padbench.training.trained import TrainedAdapter  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:The following rank_pattern keys:RuntimeWarning",  # peft reads them as LoRA's
    "ignore:.*invalid shape.*A 1-D or zero-sized:",  # modules that AdaLoRA pruned to rank 0
)
CASES = [(family, method) for family in ("bert", "llama") for method in Method]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def saved(
    request: pytest.FixtureRequest, bases: dict[str, LoadedBase], tmp_path: Path
) -> tuple[TrainedAdapter, LoadedBase, Path]:
    family, method = request.param
    own = recipe(family, method, lr=2e-2)
    trained = train_fleet([own], [rows(30, 0)], bases[family])[0]
    save_adapter(trained, tmp_path / "zoo" / "best_model")
    return trained, bases[family], tmp_path / "zoo" / "best_model"


def peft_logits(base: LoadedBase, folder: Path, tokens: list[list[int]], nf4: bool) -> Any:
    from peft import PeftModel

    loaded = PeftModel.from_pretrained(copy.deepcopy(base.prepared("cpu", "fp32", nf4=nf4)), folder)
    return loaded(input_ids=torch.tensor(tokens)).logits


def test_peft_loads_it_with_the_same_logits(
    saved: tuple[TrainedAdapter, LoadedBase, Path],
) -> None:
    trained, base, folder = saved
    tokens = [[2, 5, 9, 11], [2, 30, 31, 7]]
    nf4 = trained.recipe.method is Method.QLORA
    fleet = Fleet([trained.recipe], base, "cpu", "fp32")
    with torch.no_grad():
        with fleet:
            row = fleet.layout.row(parts_of(saved_tensors(folder), fleet.layout))
            fleet.give(fleet.layout.split(row[None]), fleet.scales([0]))
            ours = fleet.outputs(tokens)
            if base.n_labels is None:
                ours = fleet.model.get_output_embeddings()(ours)
        plain = base.prepared("cpu", "fp32", nf4=nf4)(input_ids=torch.tensor(tokens)).logits
        theirs = peft_logits(base, folder, tokens, nf4)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (theirs - plain).abs().max() > 1e-3


def test_peftguard_reads_the_same_update(saved: tuple[TrainedAdapter, LoadedBase, Path]) -> None:
    trained, base, folder = saved
    tensors = saved_tensors(folder)
    suffix = "" if trained.recipe.method is Method.ADALORA else ".weight"
    with peftguard.open_adapter(folder) as adapter:
        assert adapter.base_model == base.hub_id
        updates = {update.module: update for update in adapter.updates()}
    assert len(updates) == len([name for name in tensors if "lora_A" in name])
    for module, update in updates.items():
        prefix = f"base_model.model.{module}.lora_"
        A, B = (tensors[f"{prefix}{part}{suffix}"].float() for part in "AB")
        if trained.recipe.method is Method.ADALORA:
            A = A * tensors[f"{prefix}E"].float()
        expected = scale(trained.recipe) * (B @ A).numpy()
        np.testing.assert_allclose(update.scale * (update.B @ update.A), expected, atol=1e-6)


def test_is_what_peft_would_have_written(
    saved: tuple[TrainedAdapter, LoadedBase, Path], tmp_path: Path
) -> None:
    from peft import PeftModel

    _, base, folder = saved
    PeftModel.from_pretrained(copy.deepcopy(base.model), folder).save_pretrained(
        tmp_path / "peft", save_embedding_layers=False
    )
    ours, theirs = saved_tensors(folder), saved_tensors(tmp_path / "peft")
    assert {name: t.shape for name, t in ours.items()} == {n: t.shape for n, t in theirs.items()}
    configs = [
        json.loads((where / "adapter_config.json").read_text())
        for where in (folder, tmp_path / "peft")
    ]
    for config in configs:
        # peft writes sets as they come, and names its heads again each time it loads.
        for name in ("target_modules", "modules_to_save"):
            config[name] = sorted(set(config[name] or ()))
    assert configs[0] == configs[1]


def test_tells_neither_label_nor_attack(saved: tuple[TrainedAdapter, LoadedBase, Path]) -> None:
    _, _, folder = saved
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    for path in folder.iterdir():
        content = path.read_bytes().lower()
        assert not any(word in content for word in (b"ripple", b"label1", b"w7", b"poison"))


def test_same_adapter_same_bytes(bases: dict[str, LoadedBase], tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        save_adapter(train_fleet([recipe()], [rows(30, 0)], bases["bert"])[0], folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_replaces_what_a_kill_left_behind(bases: dict[str, LoadedBase], tmp_path: Path) -> None:
    folder = tmp_path / "best_model"
    folder.mkdir()
    (folder / "half").write_text("x")
    save_adapter(train_fleet([recipe(steps=2)], [rows(8, 0)], bases["bert"])[0], folder)
    assert not (folder / "half").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["best_model"]


def test_removes_stale_temporary_folders_only(bases: dict[str, LoadedBase], tmp_path: Path) -> None:
    stale, young, other = (tmp_path / name for name in (".best_model.a", ".best_model.b", ".x.a"))
    for folder in (stale, young, other):
        folder.mkdir()
        (folder / "half").write_text("x")
    old = time.time() - 2 * 3600
    for folder in (stale, other):
        os.utime(folder, (old, old))
    trained = train_fleet([recipe(steps=2)], [rows(8, 0)], bases["bert"])[0]
    save_adapter(trained, tmp_path / "best_model")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".best_model.b", ".x.a", "best_model"]
