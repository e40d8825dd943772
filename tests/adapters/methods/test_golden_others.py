"""AdaLoRA, LoHa, LoKr and VeRA against PEFT's own delta weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from peft import AdaLoraConfig, LoHaConfig, LoKrConfig, VeraConfig  # noqa: E402
from torch import nn  # noqa: E402
from transformers.pytorch_utils import Conv1D  # noqa: E402

DTYPES = ["float32", "float16", "bfloat16", "float8_e4m3fn"]


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(12, 12)
        self.v_proj = nn.Linear(12, 8)
        self.o_proj = nn.Linear(12, 12)
        self.up_proj = nn.Linear(12, 30)
        self.down_proj = nn.Linear(30, 12)
        self.c_attn = Conv1D(24, 12)
        self.conv1 = nn.Conv1d(4, 6, 3)
        self.conv2 = nn.Conv2d(4, 6, 3)
        self.point = nn.Conv2d(4, 6, 1)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(2))


LINEAR = ["q_proj", "down_proj"]
CONVOLUTIONS = ["conv1", "conv2", "point"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "config",
    [
        AdaLoraConfig(init_r=4, lora_alpha=6, total_step=10, target_modules=LINEAR),
        LoHaConfig(r=3, alpha=5, target_modules=LINEAR),
        LoKrConfig(r=2, alpha=5, target_modules=LINEAR),
        VeraConfig(r=5, target_modules=["q_proj", "v_proj"]),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_storage(golden: Any, config: Any, dtype: str) -> None:
    assert len(golden(Model, config, getattr(torch, dtype))) == 4


@pytest.mark.parametrize("alpha", [6, 0, -1])
def test_adalora(golden: Any, alpha: int) -> None:
    targets = [*LINEAR, "conv2"]
    config = AdaLoraConfig(init_r=4, lora_alpha=alpha, total_step=10, target_modules=targets)
    assert len(golden(Model, config)) == 6


def test_adalora_conv1d(golden: Any) -> None:
    config = AdaLoraConfig(init_r=4, total_step=10, target_modules=["c_attn"], fan_in_fan_out=True)
    assert len(golden(Model, config)) == 2


@pytest.mark.parametrize("alpha", [6, 0])
def test_pruned_adalora(golden: Any, alpha: int) -> None:
    kept = {f"layers.{n}.q_proj.lora_E": [True, n == 0, False, True] for n in range(2)}
    config = AdaLoraConfig(
        init_r=4, lora_alpha=alpha, total_step=10, target_modules=["q_proj"], rank_pattern=kept
    )
    updates = golden(Model, config)
    assert [u.rank for module in updates.values() for u in module] == [3, 2]


def test_a_saved_ranknum_counts(golden: Any) -> None:
    def with_ranknum(state: dict[str, Any]) -> dict[str, Any]:
        extra = {
            name.replace("lora_E", "ranknum"): torch.tensor([2.0])
            for name in state
            if name.endswith("lora_E")
        }
        return {**state, **extra}

    config = AdaLoraConfig(init_r=4, lora_alpha=6, total_step=10, target_modules=["q_proj"])
    (update,) = golden(Model, config, edit=with_ranknum)["layers.0.q_proj"]
    assert update.scale == pytest.approx(3, abs=1e-4)


@pytest.mark.parametrize("effective", [False, True])
def test_loha_convolutions(golden: Any, effective: bool) -> None:
    config = LoHaConfig(r=2, alpha=5, target_modules=CONVOLUTIONS, use_effective_conv2d=effective)
    updates = golden(Model, config)
    assert {u.rank for module in updates.values() for u in module} == {4}


def test_loha_patterns(golden: Any) -> None:
    config = LoHaConfig(
        r=3,
        alpha=5,
        target_modules=LINEAR,
        rank_pattern={"q_proj": 2},
        alpha_pattern={"layers.0": 1, "down_proj": 7},
    )
    assert golden(Model, config)["layers.0.down_proj"][0].scale == pytest.approx(7 / 3)


LOKR_OPTIONS: dict[str, dict[str, Any]] = {
    "w2 factored": {"r": 1, "target_modules": LINEAR},
    "both factored": {"r": 1, "target_modules": LINEAR, "decompose_both": True},
    "both whole": {"r": 64, "target_modules": LINEAR},
    "uneven": {"r": 2, "target_modules": LINEAR, "decompose_factor": 2},
    "whole is dense": {"r": 64, "target_modules": LINEAR, "decompose_factor": 1},
    "rank pattern": {"r": 64, "target_modules": LINEAR, "rank_pattern": {"q_proj": 32}},
    "flat convolutions": {"r": 1, "target_modules": CONVOLUTIONS, "decompose_factor": 1},
    "tucker": {
        "r": 1,
        "target_modules": CONVOLUTIONS,
        "decompose_factor": 1,
        "use_effective_conv2d": True,
    },
    "whole convolutions": {"r": 64, "target_modules": ["conv2", "point"]},
}


@pytest.mark.parametrize("option", LOKR_OPTIONS)
def test_lokr(golden: Any, option: str) -> None:
    updates = golden(Model, LoKrConfig(alpha=5, **LOKR_OPTIONS[option]))
    assert all(u.left is not None for module in updates.values() for u in module)


@pytest.mark.parametrize("save_projection", [True, False])
@pytest.mark.parametrize(
    "targets", [["q_proj", "v_proj", "o_proj"], ["q_proj", "up_proj", "down_proj"]]
)
def test_vera_slices(golden: Any, targets: list[str], save_projection: bool) -> None:
    config = VeraConfig(
        r=5, target_modules=targets, save_projection=save_projection, projection_prng_key=7
    )
    updates = golden(Model, config)
    assert updates["layers.1.q_proj"][0].shape == (12, 12)
    assert {u.scale for module in updates.values() for u in module} == {1.0}


@pytest.mark.parametrize("target", ["down_proj", "c_attn"])
def test_vera_with_one_role(golden: Any, target: str) -> None:
    config = VeraConfig(r=5, target_modules=[target], fan_in_fan_out=target == "c_attn")
    assert len(golden(Model, config)) == 2


def test_vera_ignores_stored_projections_where_peft_does(updates_of: Any) -> None:
    tensors = {
        "base_model.vera_A": np.ones((2, 3), np.float32),
        "base_model.vera_B": np.ones((3, 2), np.float32),
        "base_model.model.layers.0.o_proj.vera_lambda_b": np.ones(3, np.float32),
        "base_model.model.layers.0.o_proj.vera_lambda_d": np.ones(2, np.float32),
        "base_model.model.layers.0.q_proj.vera_lambda_b": np.ones(3, np.float32),
        "base_model.model.layers.0.q_proj.vera_lambda_d": np.ones(2, np.float32),
    }
    config = {"peft_type": "VERA", "save_projection": True}
    (stored,) = updates_of(tensors, config)["layers.0.q_proj"]
    (drawn,) = updates_of(tensors, {**config, "save_projection": False})["layers.0.q_proj"]
    assert np.array_equal(stored.A, np.ones((2, 3)))
    assert not np.allclose(drawn.A, 1)
