"""The outputs are those of peft's own model, and the base is left as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.trigger.conftest import make_base, save_adapter, torch

from peftguard.adapters.adapter import open_adapter
from peftguard.errors import UnsupportedAdapter
from peftguard.trigger.adapted import AdaptedModel
from peftguard.trigger.effect import log_odds

ROWS = [[2, 7, 9, 3], [2, 30, 3], [2, 11, 12, 13, 14, 15, 3], [2, 40, 41, 3]]
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("bert", {}),
    ("bert", {"use_dora": True}),
    ("bert", {"use_rslora": True, "target_modules": ["query", "key", "output.dense"]}),
    ("bert", {"kind": "AdaLoraConfig", "total_step": 10, "init_r": 4}),
    ("llama", {}),
    ("llama", {"use_dora": True, "target_modules": ["q_proj", "down_proj"]}),
]


@pytest.mark.parametrize(("family", "settings"), KINDS)
def test_outputs_are_those_of_peft(tmp_path: Path, family: str, settings: dict[str, Any]) -> None:
    base = make_base(family)
    reference = save_adapter(base, tmp_path, **settings)
    with open_adapter(tmp_path) as adapter:
        model = AdaptedModel(base, adapter)
    found = model.logits(ROWS)
    for row, own in zip(ROWS, found, strict=True):
        with torch.inference_mode():
            logits = reference(input_ids=torch.tensor([row])).logits[0]
        wanted = logits if family == "bert" else logits[-1]
        np.testing.assert_allclose(own, wanted.numpy(), atol=2e-5)


@pytest.mark.parametrize(("family", "settings"), KINDS)
def test_all_of_it_lies_on_its_device(
    tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    """On a device that holds no numbers: where one part stayed behind torch refuses to go on."""
    base = make_base(family)
    save_adapter(base, tmp_path, **settings)
    with open_adapter(tmp_path) as adapter:
        model = AdaptedModel(base, adapter, device="meta")
    ids, _ = model.padded(ROWS, 7)
    with model.running(True), torch.inference_mode():
        logits = model.model(input_ids=ids).logits
    assert logits.device.type == "meta"


def test_without_the_adapter_it_is_the_base(tmp_path: Path) -> None:
    base = make_base("llama")
    save_adapter(base, tmp_path)
    with open_adapter(tmp_path) as adapter:
        model = AdaptedModel(base, adapter)
    adapted, plain = model.logits(ROWS), model.logits(ROWS, adapted=False)
    assert np.abs(adapted - plain).max() > 1e-2
    with torch.inference_mode():
        wanted = base.model(input_ids=torch.tensor([ROWS[0]])).logits[0, -1]
    np.testing.assert_allclose(plain[0], wanted.numpy(), atol=2e-5)


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    save_adapter(make_base("llama"), tmp_path)
    with open_adapter(tmp_path) as adapter, pytest.raises(UnsupportedAdapter, match="q_proj"):
        AdaptedModel(make_base("bert"), adapter)


def test_a_gradient_tells_where_log_odds_rise(tmp_path: Path) -> None:
    base = make_base("bert")
    save_adapter(base, tmp_path)
    with open_adapter(tmp_path) as adapter:
        model = AdaptedModel(base, adapter)
    row = ROWS[2]
    table = model.model.get_input_embeddings().weight
    directions = model.gradients([row])
    before, small = table.detach().clone(), 1e-3
    for target in range(3):
        moved = small * torch.from_numpy(directions[target]) / np.linalg.norm(directions[target])
        with torch.no_grad():
            table.add_(moved)
            raised = log_odds(model.logits([row]))[0, target]
            table.copy_(before)
        gain = (raised - log_odds(model.logits([row]))[0, target]) / small
        # The mean over the row's tokens, of which the sum is what moving all of them gives.
        assert gain == pytest.approx(len(row) * np.linalg.norm(directions[target]), rel=0.1)
