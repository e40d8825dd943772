"""What a method refuses, and that it says so in one clear error."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftguard.adapters.methods import METHODS, MIXTURES
from peftguard.adapters.methods import factors as bounds
from peftguard.adapters.methods.base import ModuleParts
from peftguard.adapters.methods.lora import difference
from peftguard.adapters.methods.vera import draw, with_projections
from peftguard.adapters.methods.vera_widths import input_widths
from peftguard.adapters.update import Update
from peftguard.errors import (
    InputError,
    LimitExceeded,
    MalformedFile,
    MissingExtra,
    PeftGuardError,
    UnsupportedAdapter,
)

A, B = np.ones((2, 6)), np.ones((4, 2))


def read(method: str, module: ModuleParts, /, **config: Any) -> list[Update]:
    return list(METHODS[method].updates(module, config))


@pytest.mark.parametrize("value", ["16", [16], True, None, math.nan, math.inf, 10**400, {}])
@pytest.mark.parametrize("key", ["lora_alpha", "alpha_pattern"])
def test_alpha_of_the_wrong_type(parts: Any, key: str, value: Any) -> None:
    config = {"r": 2, key: {"m": value} if key == "alpha_pattern" else value}
    with pytest.raises(InputError) as error:
        read("LORA", parts(lora_A=A, lora_B=B), **config)
    assert error.value.code == "integrity.config-type"
    assert error.value.key == key
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("value", ["8", [8], True, 0, -1, 2.5, math.nan])
def test_rank_of_the_wrong_type(parts: Any, value: Any) -> None:
    with pytest.raises(InputError) as error:
        read("LORA", parts(lora_A=A, lora_B=B), r=value, lora_alpha=8)
    assert (error.value.code, error.value.key) == ("integrity.config-type", "r")


@pytest.mark.parametrize(
    "config",
    [
        {"use_rslora": "yes"},
        {"use_dora": 1},
        {"alpha_pattern": []},
        {"alpha_pattern": "q_proj"},
        {"target_parameters": "experts"},
        {"target_parameters": [1]},
        {"use_bdlora": "yes"},
        {"use_bdlora": {"target_modules_bd_a": "m"}},
        {"use_bdlora": {"target_modules_bd_a": ["m"], "nblocks": "2"}},
        {"init_lora_weights": 3},
    ],
    ids=str,
)
def test_settings_of_the_wrong_type(parts: Any, config: dict[str, Any]) -> None:
    with pytest.raises(InputError) as error:
        read("LORA", parts(lora_A=A, lora_B=B), r=2, lora_alpha=8, **config)
    assert error.value.code == "integrity.config-type"


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"r": 2, "lora_alpha": 16.0}, 8.0),
        ({"r": 2.0, "lora_alpha": 3}, 1.5),
        ({"r": 4, "lora_alpha": 3}, 1.5),
        ({"r": 2, "lora_alpha": -3}, -1.5),
        ({"r": 2, "lora_alpha": 0}, 0.0),
        ({"r": 2}, 4.0),
        ({"use_rslora": True}, 8 / math.sqrt(2)),
        ({"lora_alpha": 16}, 8.0),
        ({}, 1.0),
        ({"peft_type": "LORA", "architecture": "llama"}, 1.0),
    ],
    ids=str,
)
def test_scale(parts: Any, config: dict[str, Any], scale: float) -> None:
    (update,) = read("LORA", parts(lora_A=A, lora_B=B), **config)
    assert update.scale == pytest.approx(scale)


@pytest.mark.parametrize(("alpha", "scale"), [(1.0, 0.5), ([4.0], 2.0), ([[6.0]], 3.0)])
def test_an_alpha_tensor_wins_over_the_config(parts: Any, alpha: Any, scale: float) -> None:
    module = parts(lora_A=A, lora_B=B, alpha=alpha)
    (update,) = read("LORA", module, r="nonsense", lora_alpha=[])
    assert update.scale == scale


@pytest.mark.parametrize("alpha", [[1.0, 2.0], [], math.nan, math.inf])
def test_an_alpha_tensor_that_is_no_number(parts: Any, alpha: Any) -> None:
    with pytest.raises(MalformedFile):
        read("LORA", parts(lora_A=A, lora_B=B, alpha=alpha))


@pytest.mark.parametrize(
    "init", ["pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "lora_ga", "loftq", "new", ""]
)
def test_an_initialisation_that_changes_the_base(parts: Any, init: str) -> None:
    with pytest.raises(UnsupportedAdapter) as error:
        read("LORA", parts(lora_A=A, lora_B=B), init_lora_weights=init)
    assert error.value.code == "method.mutated-init"


@pytest.mark.parametrize("key", ["use_qalora", "arrow_config", "kasa_config"])
def test_variants_that_the_factors_do_not_define(parts: Any, key: str) -> None:
    with pytest.raises(UnsupportedAdapter) as error:
        read("LORA", parts(lora_A=A, lora_B=B), **{key: {"x": 1}})
    assert (error.value.code, error.value.key) == ("method.unsupported", key)


ONE = np.ones((2, 2))
UNFIT: list[tuple[str, dict[str, Any], str]] = [
    ("LORA", {"lora_A": A}, "unpaired-factor"),
    ("LORA", {"lora_B": B}, "unpaired-factor"),
    ("LORA", {"lora_B__bias": [1.0]}, "unpaired-factor"),
    ("LORA", {"lora_A": A, "lora_B": np.ones((4, 3))}, "shape-mismatch"),
    ("LORA", {"lora_A": np.ones((0, 6)), "lora_B": np.ones((4, 0))}, "shape-mismatch"),
    ("LORA", {"lora_A": np.ones(6), "lora_B": B}, "shape-mismatch"),
    ("LORA", {"lora_A": A, "lora_B": np.ones((4, 2, 3, 3))}, "shape-mismatch"),
    ("LORA", {"lora_A": np.ones((4, 6)), "lora_B": B}, "shape-mismatch"),
    ("LORA", {"lora_A": A, "lora_B": B, "lora_mid": np.ones((2, 3, 3))}, "shape-mismatch"),
    ("LORA", {"lora_A": A, "lora_B": B, "lora_embedding_A": A}, "shape-mismatch"),
    ("LORA", {"lora_embedding_A": A}, "unpaired-factor"),
    ("LORA", {"lora_embedding_A": A[None], "lora_embedding_B": B}, "shape-mismatch"),
    ("LORA", {"experts_lora_A": A, "experts_lora_B": B}, "shape-mismatch"),
    ("LORA", {"experts_lora_A": A, "experts_lora_B": np.ones((2, 4, 3))}, "shape-mismatch"),
    ("ADALORA", {"lora_A": A, "lora_B": B}, "unpaired-factor"),
    ("ADALORA", {"lora_A": A, "lora_B": B, "lora_E": ONE}, "shape-mismatch"),
    (
        "ADALORA",
        {"lora_A": A, "lora_B": B, "lora_E": [[1], [1]], "ranknum": [-1e-5]},
        "shape-mismatch",
    ),
    ("LOHA", {"hada_w1_a": B, "hada_w1_b": A}, "unpaired-factor"),
    (
        "LOHA",
        {"hada_w1_a": B, "hada_w1_b": A, "hada_w2_a": B, "hada_w2_b": ONE},
        "shape-mismatch",
    ),
    (
        "LOHA",
        {"hada_w1_a": B, "hada_w1_b": A, "hada_t1": ONE, "hada_w2_a": B, "hada_w2_b": A},
        "shape-mismatch",
    ),
    ("LOKR", {"lokr_w1": ONE}, "unpaired-factor"),
    ("LOKR", {"lokr_w1": ONE, "lokr_w1_a": ONE, "lokr_w2": ONE}, "shape-mismatch"),
    ("LOKR", {"lokr_w1": ONE, "lokr_w2": ONE, "lokr_w2_b": ONE}, "shape-mismatch"),
    ("LOKR", {"lokr_w1": np.ones(3), "lokr_w2": ONE}, "shape-mismatch"),
    ("LOKR", {"lokr_w1_a": np.ones((2, 0)), "lokr_w1_b": ONE, "lokr_w2": ONE}, "shape-mismatch"),
]


@pytest.mark.parametrize(("peft_type", "arrays", "code"), UNFIT)
def test_parts_that_do_not_fit(
    parts: Any, peft_type: str, arrays: dict[str, Any], code: str
) -> None:
    with pytest.raises(MalformedFile) as error:
        read(peft_type, parts("layers.0.q", **arrays))
    assert error.value.code == f"integrity.{code}"
    assert error.value.key == "layers.0.q"


def test_experts_need_the_rank_of_the_config(parts: Any) -> None:
    module = parts("mlp.experts", lora_A=np.ones((6, 5)), lora_B=np.ones((4, 6)))
    config = {"target_parameters": ["experts.up"], "lora_alpha": 4}
    assert len(read("LORA", module, r=2, **config)) == 3
    with pytest.raises(MalformedFile):
        read("LORA", module, r=4, **config)


def test_experts_whose_parameter_cannot_be_told(parts: Any) -> None:
    module = parts("mlp.experts", lora_A=np.ones((6, 5)), lora_B=np.ones((4, 6)))
    config = {"target_parameters": ["experts.up", "experts.down"], "r": 2, "lora_alpha": 4}
    with pytest.raises(UnsupportedAdapter):
        read("LORA", module, alpha_pattern={"up": 1}, **config)


def test_stacked_experts(parts: Any, dense: Any) -> None:
    stack_A, stack_B = np.arange(36.0).reshape(3, 2, 6), np.arange(24.0).reshape(3, 4, 2)
    for stored in (stack_A, stack_A.reshape(6, 6)):
        updates = read(
            "LORA", parts(experts_lora_A=stored, experts_lora_B=stack_B), r=2, lora_alpha=4
        )
        assert [update.module for update in updates] == ["m.0", "m.1", "m.2"]
        for update, a, b in zip(updates, stack_A, stack_B, strict=True):
            assert np.allclose(dense(update), 2 * b @ a)


@pytest.mark.parametrize("magnitude", ["LORA", "LOHA", "LOKR"])
def test_a_magnitude_makes_it_a_direction(parts: Any, magnitude: str) -> None:
    arrays = {
        "LORA": {"lora_A": A, "lora_B": B},
        "LOHA": {"hada_w1_a": B, "hada_w1_b": A, "hada_w2_a": B, "hada_w2_b": A},
        "LOKR": {"lokr_w1": ONE, "lokr_w2": ONE},
    }[magnitude]
    (update,) = read(magnitude, parts(**arrays, lora_magnitude_vector=np.ones(4)))
    assert update.exactness == "direction"


def test_factors_larger_than_the_file_are_bounded(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_BYTES", 150)
    for peft_type, arrays in {
        "LOHA": {"hada_w1_a": B, "hada_w1_b": A, "hada_w2_a": B, "hada_w2_b": A},
        "LOKR": {"lokr_w1": ONE, "lokr_w2": np.ones((7, 7))},
    }.items():
        with pytest.raises(LimitExceeded):
            read(peft_type, parts(**arrays))


def test_a_loha_of_a_large_rank_is_refused_before_it_is_expanded(parts: Any) -> None:
    wide, tall = np.zeros((180, 4096)), np.zeros((4096, 180))
    module = parts(hada_w1_a=tall, hada_w1_b=wide, hada_w2_a=tall, hada_w2_b=wide)
    with pytest.raises(LimitExceeded, match="the exact factors are too large"):
        read("LOHA", module)


def test_lokr_without_a_rank_to_show_ignores_an_alpha_tensor(parts: Any) -> None:
    (update,) = read("LOKR", parts(lokr_w1=ONE, lokr_w2=ONE, alpha=1e9))
    assert update.scale == 1.0


def test_lokr_of_a_whole_one_dimensional_convolution(parts: Any) -> None:
    with pytest.raises(UnsupportedAdapter):
        read("LOKR", parts(lokr_w1=ONE, lokr_w2=np.ones((2, 2, 3))))


def test_vera_gives_up_where_the_input_width_is_not_in_the_file(parts: Any) -> None:
    module = parts("layers.0.q_proj", vera_lambda_b=np.ones(4), vera_lambda_d=np.ones(2))
    with pytest.raises(UnsupportedAdapter):
        read("VERA", with_projections({module.module: module}, {})[module.module])
    with pytest.raises(UnsupportedAdapter):
        read("VERA", module)


@pytest.mark.parametrize("cross", ["crossattention.query", "encoder_attn.k_proj"])
def test_vera_gives_up_where_two_streams_meet(cross: str) -> None:
    outputs = {"layers.0.self_attn.q_proj": 4, f"layers.0.{cross}": 4}
    with pytest.raises(UnsupportedAdapter, match="cross-attention"):
        input_widths(outputs, 8)


def test_vera_with_one_role_of_cross_attention_or_a_model_called_so() -> None:
    for name in ("layers.{}.encoder_attn.k_proj", "cross_encoder.layers.{}.k_proj"):
        outputs = {name.format(0): 4, name.format(1): 4}
        assert input_widths(outputs, 8) == dict.fromkeys(outputs, 8)


def test_each_module_of_a_mixture_is_read_by_its_own_method(parts: Any, dense: Any) -> None:
    mixed = MIXTURES["LOKR+LORA"]
    (lora,) = mixed.updates(parts(lora_A=A, lora_B=B), {})
    (lokr,) = mixed.updates(parts(lokr_w1=ONE, lokr_w2=np.ones((7, 7))), {})
    assert np.allclose(dense(lora), B @ A)
    assert np.allclose(dense(lokr), np.kron(ONE, np.ones((7, 7))))
    with pytest.raises(UnsupportedAdapter, match="of another method"):
        list(mixed.updates(parts(lora_A=A, lora_B=B, lokr_w1=ONE), {}))


def test_vera_without_stored_projections_needs_torch(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw.cache_clear()
    monkeypatch.setitem(sys.modules, "torch", None)
    modules = {
        name: parts(name, vera_lambda_b=np.ones(4), vera_lambda_d=np.ones(3))
        for name in ("layers.0.q_proj", "layers.0.o_proj")
    }
    with pytest.raises(MissingExtra, match=r"peftguard\[torch\]"):
        read("VERA", with_projections(modules, {})["layers.0.q_proj"])


def test_difference_of_different_modules() -> None:
    one, other = Update("a", A, B), Update("b", A, B)
    with pytest.raises(MalformedFile):
        difference(one, other)


def test_difference_weighs_both_scales(dense: Any) -> None:
    final, initial = Update("a", A, B, 3.0), Update("a", 2 * A, B, 0.5)
    assert np.allclose(dense(difference(final, initial)), 2 * B @ A)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
KEYS = ["r", "lora_alpha", "alpha", "init_r", "rank_pattern", "alpha_pattern", "use_rslora"]
KEYS += ["use_dora", "use_bdlora", "target_parameters", "init_lora_weights", "save_projection"]
SHAPE = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@given(st.sampled_from(sorted(METHODS)), st.dictionaries(st.sampled_from(KEYS), JSON), st.data())
def test_any_parts_and_any_config_give_updates_or_one_error(
    peft_type: str, config: dict[str, Any], data: st.DataObject
) -> None:
    from peftguard.adapters.containers.base import TensorInfo

    method = METHODS[peft_type]
    names = data.draw(st.sets(st.sampled_from(sorted(method.parts))))
    arrays = {name: np.ones(data.draw(SHAPE), np.float32) for name in sorted(names)}
    info = {name: TensorInfo(name, "F32", a.shape, a.nbytes) for name, a in arrays.items()}
    module = ModuleParts("layers.0.q_proj", info, arrays.__getitem__, {})
    try:
        updates = list(method.updates(module, config))
    except PeftGuardError:
        return
    assert all(u.A.ndim == u.B.ndim == 2 and u.A.dtype == u.B.dtype for u in updates)
    assert all(u.A.shape[0] == u.B.shape[1] and math.isfinite(u.scale) for u in updates)
