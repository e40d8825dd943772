"""diffusers names and metadata, against the installed diffusers where there is one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.keys import config_from_metadata, recognise
from peftguard.adapters.keys.base import Part, Payload
from peftguard.adapters.keys.diffusers import DIFFUSERS
from peftguard.adapters.keys.peft import PEFT
from peftguard.errors import InputError, LimitExceeded, UnsupportedAdapter
from peftguard.limits import Limits


def infos(*names: str, shape: tuple[int, ...] = (4, 8)) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, "F32", shape, 0) for name in names}


def parse_one(name: str) -> Part | Payload:
    (entry,) = DIFFUSERS.parse(infos(name), None)
    return entry


ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
TEXT = "text_model.encoder.layers.0.self_attn"


@pytest.mark.parametrize(
    "name",
    [
        *(f"{ATTENTION}.processor.to_{x}_lora.down.weight" for x in ("q", "k", "v", "out")),
        *(f"{ATTENTION}.to_{x}_lora.up.weight" for x in ("q", "out")),
        f"{ATTENTION}.to_q.lora.down.weight",
        f"{ATTENTION}.to_out.0.lora.up.weight",
        f"{ATTENTION}.to_q.lora_A.weight",
        "mid_block.resnets.0.conv1.lora.up.weight",
    ],
)
def test_unet_names_agree_with_diffusers(name: str) -> None:
    utils = pytest.importorskip("diffusers.utils.state_dict_utils")
    (expected,) = utils.convert_unet_state_dict_to_peft({name: None})
    tensors = infos(f"unet.{name}")
    assert recognise(tensors, None) is DIFFUSERS
    entry = parse_one(f"unet.{name}")
    assert isinstance(entry, Part)
    assert f"{entry.module}.{entry.part}.weight" == f"unet.{expected}"


@pytest.mark.parametrize(
    "name",
    [
        *(f"{TEXT}.to_{x}_lora.down.weight" for x in ("q", "k", "v", "out")),
        *(f"{TEXT}.{x}_proj.lora_linear_layer.up.weight" for x in ("q", "out")),
        "text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.down.weight",
    ],
)
def test_text_encoder_names_agree_with_diffusers(name: str) -> None:
    utils = pytest.importorskip("diffusers.utils.state_dict_utils")
    kind = "DIFFUSERS_OLD" if "to_" in name else "DIFFUSERS"
    (expected,) = utils.convert_state_dict_to_peft(
        {name: None}, original_type=utils.StateDictType[kind]
    )
    entry = parse_one(f"text_encoder.{name}")
    assert isinstance(entry, Part)
    assert f"{entry.module}.{entry.part}.weight" == f"text_encoder.{expected}"


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("transformer.x_embedder.alpha", "transformer.x_embedder"),
        (f"unet.{ATTENTION}.to_q.lora.alpha", f"unet.{ATTENTION}.to_q"),
        (f"unet.{ATTENTION}.to_q.lora_A.weight.alpha", f"unet.{ATTENTION}.to_q"),
        (f"unet.{ATTENTION}.processor.to_out_lora.alpha", f"unet.{ATTENTION}.to_out.0"),
        (
            f"text_encoder.{TEXT}.q_proj.lora_linear_layer.down.weight.alpha",
            f"text_encoder.{TEXT}.q_proj",
        ),
    ],
)
def test_alpha_beside_a_module_or_a_factor(name: str, module: str) -> None:
    assert parse_one(name) == Part(name, module, "alpha")


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("diffusion_model.blocks.0.q.lora_down.weight", ("diffusion_model.blocks.0.q", "lora_A")),
        ("diffusion_model.blocks.0.q.lora_up.weight", ("diffusion_model.blocks.0.q", "lora_B")),
        ("transformer.q.lora_B.bias", ("transformer.q", "lora_B.bias")),
        ("transformer.q.lora_magnitude_vector", ("transformer.q", "lora_magnitude_vector")),
        ("transformer.q.lora.up.bias", ("transformer.q", "lora_B.bias")),
        ("unet.q.lokr_w1", ("unet.q", "lokr_w1")),
    ],
)
def test_other_parts(name: str, entry: tuple[str, str]) -> None:
    assert recognise(infos(name, "unet.x.lora_A.weight"), None) is DIFFUSERS
    assert parse_one(name) == Part(name, *entry)


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("diffusion_model.head.diff", (4, 4), "module-to-save"),
        ("diffusion_model.head.diff_b", (4,), "bias"),
        ("transformer.blocks.0.norm_q.weight", (4,), "norm"),
        ("transformer.proj_out.weight", (4, 4), "unexplained"),
        ("unet.q.lora.down.bias", (4,), "bias"),
    ],
)
def test_payload(name: str, shape: tuple[int, ...], kind: str) -> None:
    (entry,) = DIFFUSERS.parse(infos(name, shape=shape), None)
    assert isinstance(entry, Payload)
    assert entry.kind == kind


def test_language_models_are_not_pipelines() -> None:
    assert recognise(infos("transformer.h.0.attn.c_attn.lora_A.weight"), None) is PEFT
    assert recognise(infos("base_model.model.unet.q.lora_A.weight"), None) is PEFT
    assert recognise(infos("unet.q.lora_A.weight"), {"peft_type": "LORA"}) is PEFT


def tiny_unet() -> Any:
    diffusers = pytest.importorskip("diffusers")
    return diffusers.UNet2DConditionModel(
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=2,
        sample_size=8,
    )


def test_a_file_that_diffusers_wrote(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    peft = pytest.importorskip("peft")
    safetensors = pytest.importorskip("safetensors")
    unet = tiny_unet()
    unet.add_adapter(peft.LoraConfig(r=2, lora_alpha=6, target_modules=["to_q", "to_out.0"]))
    diffusers.StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=peft.get_peft_model_state_dict(unet),
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
    )
    with safetensors.safe_open(tmp_path / "pytorch_lora_weights.safetensors", "np") as file:
        metadata = file.metadata()
        tensors = infos(*file.keys())
    assert recognise(tensors, None) is DIFFUSERS
    expected = {
        f"unet.{name}" for name, module in unet.named_modules() if hasattr(module, "lora_A")
    }
    parsed = {(e.module, e.part) for e in DIFFUSERS.parse(tensors, None) if isinstance(e, Part)}
    assert expected
    assert parsed == {(module, part) for module in expected for part in ("lora_A", "lora_B")}
    config = config_from_metadata(metadata, Limits())
    assert config is not None
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 2, 6)
    assert config["alpha_pattern"] == {}


def joined(**fields: object) -> dict[str, object] | None:
    metadata = {"lora_adapter_metadata": json.dumps(fields)}
    return config_from_metadata(metadata, Limits())


def test_components_that_differ_get_patterns_of_their_own() -> None:
    config = joined(
        **{
            "unet.r": 4,
            "unet.lora_alpha": 8,
            "unet.alpha_pattern": {"to_q": 2},
            "text_encoder.r": 4,
            "text_encoder.lora_alpha": 4,
            "text_encoder_2.lora_alpha": 16,
        }
    )
    assert config is not None

    def alpha(module: str) -> object:
        """As peft picks it: the first pattern that matches, else the default."""
        patterns = config["alpha_pattern"].items()
        return next(
            (value for key, value in patterns if re.match(rf"(.*\.)?({key})$", module)),
            config["lora_alpha"],
        )

    assert alpha("unet.down.to_q") == 2
    assert alpha("unet.down.to_k") == 8
    assert alpha("text_encoder.layers.0.to_q") == 4
    assert alpha("text_encoder_2.layers.0.q_proj") == 16


def test_one_component_keeps_its_patterns() -> None:
    config = joined(**{"transformer.r": 4, "transformer.rank_pattern": {"to_q": 2}})
    assert config == {"r": 4, "rank_pattern": {"to_q": 2}, "alpha_pattern": {}}


def test_components_that_scale_differently_are_refused() -> None:
    with pytest.raises(UnsupportedAdapter, match="use_rslora"):
        joined(**{"unet.use_rslora": True, "text_encoder.use_rslora": False})


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": ' * 200, '"x"'])
def test_broken_metadata_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError):
        config_from_metadata({"lora_adapter_metadata": text}, Limits())


def test_metadata_is_bounded() -> None:
    metadata = {"lora_adapter_metadata": json.dumps({"unet.x": "y" * 2000})}
    with pytest.raises(LimitExceeded):
        config_from_metadata(metadata, Limits(max_config_bytes=1000))


@given(
    st.dictionaries(
        st.one_of(
            st.text(max_size=40),
            st.builds(
                "{}.{}.{}".format,
                st.sampled_from(["unet", "transformer", "text_encoder", ""]),
                st.text(max_size=6),
                st.sampled_from(
                    ["alpha", "lora.up.weight", "to_q_lora.down.weight", "lora_A.weight", "alpha.x"]
                ),
            ),
        ),
        st.lists(st.integers(0, 9), max_size=4).map(tuple),
        max_size=12,
    )
)
def test_every_tensor_comes_out_once_in_order(shapes: dict[str, tuple[int, ...]]) -> None:
    tensors = {name: TensorInfo(name, "F16", shape, 0) for name, shape in shapes.items()}
    assert [entry.tensor for entry in DIFFUSERS.parse(tensors, None)] == list(tensors)
