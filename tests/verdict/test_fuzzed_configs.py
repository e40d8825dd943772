"""Whatever a config holds, a scan ends in one result that says what is wrong, never in a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftguard import scan
from peftguard.adapters.methods import PEFT_TYPES
from peftguard.results import Label

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.just("8")
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
PATTERNS = st.dictionaries(
    st.sampled_from(["q_proj", "(a+)+$", "[qv]_proj", "(", ".*", "layers.0.self_attn.q_proj", ""]),
    SCALARS,
    max_size=3,
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "peft_type": st.one_of(st.sampled_from([*PEFT_TYPES, "lora", ""]), VALUES),
        "r": VALUES,
        "lora_alpha": VALUES,
        "target_modules": st.one_of(VALUES, st.sampled_from(["(.*a)*b", "all-linear", "[", "q"])),
        "rank_pattern": st.one_of(PATTERNS, VALUES),
        "alpha_pattern": st.one_of(PATTERNS, VALUES),
        "use_rslora": VALUES,
        "use_dora": VALUES,
        "init_lora_weights": st.one_of(VALUES, st.sampled_from(["pissa", "eva", "olora"])),
        "modules_to_save": VALUES,
        "target_parameters": VALUES,
        "alora_invocation_tokens": VALUES,
        "trainable_token_indices": VALUES,
        "auto_mapping": VALUES,
        "megatron_config": VALUES,
        "megatron_core": VALUES,
        "base_model_name_or_path": VALUES,
        "task_type": VALUES,
        "peft_version": VALUES,
        "fine_tune_type": VALUES,
        "lora_parameters": VALUES,
        "use_bdlora": VALUES,
        "layer_replication": VALUES,
        "layers_to_transform": VALUES,
        "layers_pattern": VALUES,
        "exclude_modules": st.one_of(VALUES, st.sampled_from(["(.*a)*b", ".*v_proj", "["])),
        "projection_prng_key": VALUES,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(config=CONFIGS)
def test_any_config_gives_a_result(make_adapter: Any, config: dict[str, Any]) -> None:
    folder: Path = make_adapter()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (result,) = scan(folder, cache=False, offline=True).results
    assert result.verdict.label is Label.UNKNOWN
    assert "error.internal" not in {finding.code for finding in result.findings}
    assert all("\n" not in finding.message for finding in result.findings)
