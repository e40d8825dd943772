"""LoRA and its options against PEFT's own delta weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from peft import LoraConfig  # noqa: E402
from torch import nn  # noqa: E402
from transformers.pytorch_utils import Conv1D  # noqa: E402


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(12, 10)
        self.v_proj = nn.Linear(10, 12)
        self.c_attn = Conv1D(8, 12)
        self.embed = nn.Embedding(20, 6)
        self.conv1 = nn.Conv1d(4, 6, 3)
        self.conv2 = nn.Conv2d(4, 6, (3, 2))
        self.point = nn.Conv2d(4, 6, 1)
        self.conv3 = nn.Conv3d(4, 6, (2, 2, 1))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(2))


class Experts(nn.Module):
    def __init__(self, *, is_transposed: bool = False) -> None:
        super().__init__()
        self.is_transposed = is_transposed
        self.gate_up_proj = nn.Parameter(torch.randn(3, 8, 6))
        self.down_proj = nn.Parameter(torch.randn(3, 6, 4))


class Moe(nn.Module):
    def __init__(self, *, is_transposed: bool = False) -> None:
        super().__init__()
        self.experts = Experts(is_transposed=is_transposed)
        self.router = nn.Linear(6, 3)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2)


LINEAR = ["q_proj", "v_proj"]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": LINEAR},
    "rslora": {"target_modules": LINEAR, "use_rslora": True},
    "rank_pattern": {"target_modules": LINEAR, "rank_pattern": {"v_proj": 5}},
    "alpha_pattern": {"target_modules": LINEAR, "alpha_pattern": {"layers.1.q_proj": 3}},
    "expressions": {
        "target_modules": LINEAR,
        "rank_pattern": {r"layers\.[01]\.q.*": 3, "q_proj": 2},
        "alpha_pattern": {r"(q|k)_proj": 7, "layers.0.q_proj": 1},
    },
    "both, rslora": {
        "target_modules": r".*\.[qv]_proj",
        "rank_pattern": {"q_proj": 3},
        "alpha_pattern": {"v_proj": 5},
        "use_rslora": True,
    },
    "Conv1D": {"target_modules": ["c_attn"], "fan_in_fan_out": True},
    "embedding": {"target_modules": ["embed"]},
    "embedding, rslora": {"target_modules": ["embed"], "use_rslora": True},
    "convolutions": {"target_modules": ["conv1", "conv2", "point", "conv3"]},
    "bias": {"target_modules": LINEAR, "lora_bias": True},
    "base biases": {"target_modules": LINEAR, "bias": "all"},
    "orthogonal": {"target_modules": LINEAR, "init_lora_weights": "orthogonal"},
    "mica": {"target_modules": LINEAR, "init_lora_weights": "mica"},
    "aLoRA": {"target_modules": LINEAR, "alora_invocation_tokens": [1]},
    "VeLoRA": {
        "target_modules": ["q_proj"],
        "velora_config": {"num_groups": 2, "init_type": "random"},
    },
    "block-diagonal": {
        "target_modules": LINEAR,
        "use_bdlora": peft.tuners.lora.config.BdLoraConfig(
            target_modules_bd_a=["q_proj"], target_modules_bd_b=["v_proj"], nblocks=2
        ),
    },
}


@pytest.mark.parametrize("option", OPTIONS)
def test_equals_peft(golden: Any, option: str) -> None:
    updates = golden(Model, LoraConfig(r=4, lora_alpha=6, **OPTIONS[option]))
    assert updates
    assert {u.exactness for module in updates.values() for u in module} == {"exact"}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
def test_storage(golden: Any, dtype: str) -> None:
    targets = [*LINEAR, "c_attn", "embed", "conv2"]
    config = LoraConfig(r=4, lora_alpha=6, target_modules=targets)
    assert len(golden(Model, config, getattr(torch, dtype))) == 10


def test_attention_block(golden: Any) -> None:
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["attn"], alpha_pattern={"attn": 3})
    updates = golden(Attention, config)
    assert set(updates) == {"attn", "attn.base_layer.out_proj"}
    assert [update.scale for module in updates.values() for update in module] == [1.5, 1.5]


@pytest.mark.parametrize("is_transposed", [False, True])
def test_experts(golden: Any, is_transposed: bool) -> None:
    config = LoraConfig(
        r=2,
        lora_alpha=6,
        target_modules=["router"],
        target_parameters=["experts.gate_up_proj", "experts.down_proj"],
    )
    updates = golden(lambda: Moe(is_transposed=is_transposed), config)
    assert {module: len(experts) for module, experts in updates.items()} == {
        "experts": 3,
        "experts.base_layer": 3,
        "router": 1,
    }
    assert [u.module for u in updates["experts"]] == ["experts.0", "experts.1", "experts.2"]


def test_experts_of_one_parameter_follow_the_patterns(golden: Any) -> None:
    config = LoraConfig(
        r=2,
        lora_alpha=6,
        target_modules=[],
        target_parameters=["experts.down_proj"],
        rank_pattern={"down_proj": 4},
        alpha_pattern={"experts.down_proj": 3},
    )
    updates = golden(Moe, config)
    assert [u.rank for u in updates["experts"]] == [4, 4, 4]


def test_a_two_dimensional_parameter_is_a_plain_module(golden: Any) -> None:
    config = LoraConfig(r=2, target_modules=[], target_parameters=["router.weight"])
    assert [u.module for u in golden(Moe, config)["router"]] == ["router"]


def test_layer_replication_keeps_the_new_numbers(golden: Any) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tiny = LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    config = LoraConfig(r=2, target_modules=["q_proj"], layer_replication=[(0, 1), (0, 1)])
    assert list(golden(lambda: LlamaForCausalLM(tiny), config)) == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
    ]


@pytest.mark.parametrize("target", ["q_proj", "c_attn", "embed", "conv2"])
def test_dora_is_exact_but_for_the_magnitude(golden: Any, target: str) -> None:
    config = LoraConfig(r=4, lora_alpha=6, target_modules=[target], use_dora=True)
    updates = golden(Model, config)
    assert {u.exactness for module in updates.values() for u in module} == {"direction"}


def test_grouped_convolution_acts_as_peft_does(updates_of: Any, dense: Any) -> None:
    base = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=False))
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["0"], init_lora_weights=False)
    model = peft.get_peft_model(base, config)
    state = {name: tensor.numpy() for name, tensor in peft.get_peft_model_state_dict(model).items()}
    (update,) = updates_of(state, {"peft_type": "LORA", "r": 4, "lora_alpha": 6})["0"]
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad(), model.disable_adapter():
        before = model(x)
    with torch.no_grad():
        change = model(x) - before
        kernel = torch.from_numpy(dense(update)).float().reshape(6, 4, 3, 3)
        assert torch.allclose(nn.functional.conv2d(x, kernel), change, atol=1e-5)


def test_locon_is_the_composition_of_its_convolutions(parts: Any, dense: Any) -> None:
    from peftguard.adapters.methods.lora import Lora

    down, mid, up = nn.Conv2d(4, 3, 1), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 6, 1)
    weights = [layer.weight.detach() for layer in (down, mid, up)]
    module = parts(
        lora_A=weights[0].numpy(), lora_mid=weights[1].numpy(), lora_B=weights[2].numpy(), alpha=6
    )
    (update,) = Lora().updates(module, {})
    x = torch.randn(2, 4, 5, 5)
    expected = x
    for weight in weights:
        expected = nn.functional.conv2d(expected, weight)
    kernel = torch.from_numpy(dense(update)).float().reshape(6, 4, 3, 3)
    assert update.scale == 2.0
    assert torch.allclose(nn.functional.conv2d(x, kernel), 2 * expected, atol=1e-5)


def test_difference_is_what_peft_converts_pissa_to(golden: Any, dense: Any, tmp_path: Any) -> None:
    from peftguard.adapters.methods.lora import difference

    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(12, 10, bias=False))
    weight = base[0].weight.detach().clone()
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["0"], init_lora_weights="pissa")
    model = peft.get_peft_model(base, config)
    initial = _updates(model)
    with torch.no_grad():
        model.base_model.model[0].lora_B["default"].weight.add_(0.1)
    final = _updates(model)
    with torch.no_grad():
        merged = model.merge_and_unload()[0].weight
    change = difference(final, initial)
    assert change.rank == 6
    assert np.allclose(dense(change), (merged - weight).detach().numpy(), atol=1e-5)


def _updates(model: Any) -> Any:
    from peftguard.adapters.update import Update

    state = peft.get_peft_model_state_dict(model)
    A, B = (state[f"base_model.model.0.lora_{x}.weight"].detach().numpy().copy() for x in "AB")
    return Update("0", A, B, 2.0)


def test_monteclora_is_plain_outside_training(updates_of: Any, dense: Any) -> None:
    from peft.tuners.lora.config import MontecloraConfig

    base = nn.Sequential(nn.Linear(12, 10, bias=False))
    config = LoraConfig(
        r=4, target_modules=["0"], init_lora_weights=False, monteclora_config=MontecloraConfig()
    )
    model = peft.get_peft_model(base, config).eval()
    layer = model.base_model.model[0]
    pair = SimpleNamespace(A=layer.lora_A["default"].weight, B=layer.lora_B["default"].weight)
    names = {"0.lora_A.weight": pair.A, "0.lora_B.weight": pair.B}
    tensors = {name: tensor.detach().numpy() for name, tensor in names.items()}
    (update,) = updates_of(tensors, {"peft_type": "LORA", "r": 4, "lora_alpha": 8})["0"]
    x = torch.randn(2, 12)
    with torch.no_grad():
        change = model(x) - base[0].get_base_layer()(x)
    assert np.allclose(x.numpy() @ dense(update).T, change.numpy(), atol=1e-5)
