"""kohya and LyCORIS names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftguard.adapters.containers.base import TensorInfo
from peftguard.adapters.keys import config_from_metadata, recognise
from peftguard.adapters.keys.base import Part, Payload
from peftguard.adapters.keys.kohya import KOHYA
from peftguard.limits import Limits

TE = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
UNET = "lora_unet_down_blocks_0_attentions_0_proj_in"


def infos(*names: str, shape: tuple[int, ...] = (4, 8)) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, "F32", shape, 128) for name in names}


@pytest.mark.parametrize(
    ("suffix", "part"),
    [
        ("lora_down.weight", "lora_A"),
        ("lora_up.weight", "lora_B"),
        ("lora_mid.weight", "lora_mid"),
        ("lora_A.weight", "lora_A"),
        ("lora_B.weight", "lora_B"),
        ("alpha", "alpha"),
        ("dora_scale", "lora_magnitude_vector"),
        ("hada_w1_a", "hada_w1_a"),
        ("hada_t2", "hada_t2"),
        ("lokr_w1", "lokr_w1"),
        ("lokr_w2_b", "lokr_w2_b"),
    ],
)
@pytest.mark.parametrize("module", [TE, UNET, "lycoris_transformer_blocks_0_ff"])
def test_parts(module: str, suffix: str, part: str) -> None:
    name = f"{module}.{suffix}"
    assert recognise(infos(name), None) is KOHYA
    assert KOHYA.parse(infos(name), None) == [Part(name, module, part)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"{UNET}.diff", "module-to-save"),
        (f"{UNET}.diff_b", "bias"),
        (f"{UNET}.w_norm", "norm"),
        (f"{UNET}.b_norm", "norm"),
        (f"{UNET}.q_layer.weight", "unexplained"),
        (f"{UNET}.lora_down.weight.more", "unexplained"),
        ("bundle_emb.cat.string_to_param.*", "unexplained"),
        ("oft_unet_x.oft_blocks", "unexplained"),
    ],
)
def test_payload(name: str, kind: str) -> None:
    (entry,) = KOHYA.parse(infos(name), None)
    assert isinstance(entry, Payload)
    assert (entry.tensor, entry.kind) == (name, kind)


def test_only_flattened_modules_are_recognised() -> None:
    assert not KOHYA.recognises(infos("lora_A.weight", "model.q.lora_down.weight"), None)
    assert not KOHYA.recognises(infos("lora_unet_x.unheard_of"), None)


def test_names_as_diffusers_exports_them() -> None:
    torch = pytest.importorskip("torch")
    utils = pytest.importorskip("diffusers.utils.state_dict_utils")
    state = {
        "unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.zeros(4, 8),
        "unet.mid_block.attentions.0.proj_in.lora_B.weight": torch.zeros(8, 4),
        "text_encoder.layers.0.q_proj.lora_A.weight": torch.zeros(4, 8),
        "text_encoder.layers.0.q_proj.lora_B.weight": torch.zeros(8, 4),
    }
    names = list(utils.convert_state_dict_to_kohya(state))
    parsed = KOHYA.parse(infos(*names), None)
    assert recognise(infos(*names), None) is KOHYA
    assert {(entry.module, entry.part) for entry in parsed if isinstance(entry, Part)} == {
        (module, part)
        for module in ("lora_unet_mid_block_attentions_0_proj_in", "lora_te1_layers_0_q_proj")
        for part in ("lora_A", "lora_B", "alpha")
    }


def test_metadata() -> None:
    metadata = {"ss_network_dim": "32", "ss_network_alpha": "16", "ss_base_model_version": "sd_1.5"}
    assert config_from_metadata(metadata, Limits()) == {"base_model_name_or_path": "sd_1.5"}
    assert config_from_metadata({"ss_network_dim": "32"}, Limits()) == {}
    assert config_from_metadata({"format": "pt"}, Limits()) is None
    long = {"ss_sd_model_name": "m" * 5000}
    config = config_from_metadata(long, Limits(max_name_length=10))
    assert config == {"base_model_name_or_path": "m" * 10}


NAMES = st.dictionaries(
    st.one_of(
        st.text(max_size=40),
        st.builds(
            "{}{}.{}".format,
            st.sampled_from(["lora_unet_", "lora_te_", "lycoris_", ""]),
            st.text(max_size=10),
            st.sampled_from(["alpha", "lora_up.weight", "hada_t1", "diff", "x"]),
        ),
    ),
    st.lists(st.integers(0, 9), max_size=4).map(tuple),
    max_size=12,
)


@given(NAMES)
def test_every_tensor_comes_out_once_in_order(shapes: dict[str, tuple[int, ...]]) -> None:
    tensors = {name: TensorInfo(name, "F16", shape, 0) for name, shape in shapes.items()}
    assert [entry.tensor for entry in KOHYA.parse(tensors, None)] == list(tensors)
