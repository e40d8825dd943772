"""Real adapters made by strangers: each gets a valid result, and peft agrees with what we read.

They are not part of this repository. `PEFTGUARD_WILD` names a folder of adapter folders; by default
`../shared/adapters-in-the-wild` beside the checkout. Without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from peftguard import open_adapter, scan
from peftguard.errors import InputError
from peftguard.reports.json_report import schema
from peftguard.results import Label, Scan

ROOT = Path(__file__).parents[2]
WILD = Path(os.environ.get("PEFTGUARD_WILD", ROOT.parent / "shared" / "adapters-in-the-wild"))
FOLDERS = sorted(path for path in WILD.glob("*") if path.is_dir())

pytestmark = pytest.mark.skipif(not FOLDERS, reason="no real adapters here")


@pytest.fixture(scope="module")
def report() -> Scan:
    pytest.importorskip("torch")
    return scan(*FOLDERS, cache=False, offline=True)


def test_every_folder_has_one_valid_result(report: Scan) -> None:
    assert [result.target for result in report.results] == [str(folder) for folder in FOLDERS]
    jsonschema.validate(json.loads(report.model_dump_json()), schema())


def test_nothing_fails_inside(report: Scan) -> None:
    assert not [f for r in report.results for f in r.findings if f.code == "error.internal"]
    assert {result.verdict.label for result in report.results} <= {Label.UNKNOWN, Label.CLEAN}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_peft_computes_the_same_updates(folder: Path) -> None:
    """A base of plain layers with the right shapes stands in for models that are not here."""
    peft = pytest.importorskip("peft")
    try:
        with open_adapter(folder) as adapter:
            if adapter.format != "peft" or not isinstance(adapter.config.get("peft_type"), str):
                pytest.skip("not an adapter that peft can load")
            updates = {update.module: update for update in adapter.updates()}
            state = {name: adapter.container.read(name) for name in adapter.container.tensors}
    except InputError as error:
        pytest.skip(f"not readable: {error}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.PeftConfig.from_pretrained(folder)
        model = _loaded(updates, config, state)
        for module, update in updates.items():
            layer = model.base_model.model.get_submodule(module)
            delta = layer.get_delta_weight("default").detach().double().numpy()
            delta = delta.T if getattr(layer, "fan_in_fan_out", False) else delta
            ours = update.scale * (update.B.astype(float) @ update.A.astype(float))
            assert np.abs(ours - delta).max() <= 1e-5 * max(np.abs(delta).max(), 1e-12)


def _loaded(updates: dict[str, Any], config: Any, state: dict[str, np.ndarray]) -> Any:
    import peft
    import torch

    base = torch.nn.Module()
    for module, update in updates.items():
        _place(base, module, _layer(update.shape, fan_in_fan_out=config.fan_in_fan_out))
    config.task_type, config.modules_to_save, config.inference_mode = None, None, False
    model = peft.PeftModel(base, config)
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    result = peft.set_peft_model_state_dict(model, tensors)
    assert not [key for key in result.missing_keys if "lora_" in key]
    return model


def _layer(shape: tuple[int, int], *, fan_in_fan_out: bool) -> Any:
    import torch
    from transformers.pytorch_utils import Conv1D

    out, into = shape
    return Conv1D(out, into) if fan_in_fan_out else torch.nn.Linear(into, out, bias=False)


def _place(root: Any, path: str, layer: Any) -> None:
    import torch

    *parents, leaf = path.split(".")
    for name in parents:
        if not hasattr(root, name):
            root.add_module(name, torch.nn.Module())
        root = getattr(root, name)
    root.add_module(leaf, layer)
