"""Whole scans of single adapters: what is found, and that nothing is raised."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from peftguard import scan
from peftguard.adapters.adapter import open_adapter
from peftguard.findings import Severity
from peftguard.limits import Deadline
from peftguard.results import Label, Result
from peftguard.verdict.checks import check_integrity

PREFIX = "base_model.model.model.layers"
Q0 = f"{PREFIX}.0.self_attn.q_proj"


def judged(target: Path, **settings: Any) -> Result:
    (result,) = scan(target, cache=False, offline=True, **settings).results
    return result


def codes(result: Result) -> set[str]:
    return {finding.code for finding in result.findings}


def severity(result: Result, code: str) -> Severity:
    return next(finding.severity for finding in result.findings if finding.code == code)


def test_a_plain_adapter(make_adapter: Any) -> None:
    result = judged(make_adapter())
    assert result.verdict.label is Label.UNKNOWN
    assert codes(result) <= {"weights.outlier-module"}
    assert result.adapter is not None
    summary = result.adapter
    assert (summary.peft_type, summary.rank, summary.n_modules) == ("LORA", 4, 6)
    assert (summary.base_model, summary.scale, summary.format) == ("org/base", [2.0], "peft")
    assert summary.target_modules == ["self_attn.q_proj", "self_attn.v_proj"]
    assert summary.n_parameters == 6 * 2 * 4 * 24
    assert result.modules[0].module == "model.layers.0.self_attn.q_proj"
    assert result.sha256 == result.files[0].sha256
    assert [file.path for file in result.files] == [
        "adapter_model.safetensors",
        "adapter_config.json",
    ]


def test_figures_are_those_of_the_dense_update(make_adapter: Any) -> None:
    folder = make_adapter()
    state = load_file(folder / "adapter_model.safetensors")
    delta = 2.0 * state[f"{Q0}.lora_B.weight"].astype(float) @ state[f"{Q0}.lora_A.weight"]
    (profile,) = (m for m in judged(folder).modules if m.module.endswith("0.self_attn.q_proj"))
    sigma = np.linalg.svd(delta, compute_uv=False)
    assert profile.sigma_1 == pytest.approx(sigma[0], rel=1e-5)
    assert profile.frobenius == pytest.approx(np.linalg.norm(delta), rel=1e-5)
    centred = (delta - delta.mean()) / delta.std()
    assert profile.kurtosis == pytest.approx((centred**4).mean(), rel=1e-3)


def test_not_a_number(make_adapter: Any) -> None:
    broken = np.full((4, 24), np.nan, np.float32)
    result = judged(make_adapter(**{f"{Q0}.lora_A.weight": broken}))
    assert severity(result, "integrity.non-finite") is Severity.HIGH
    assert result.verdict.label is Label.UNKNOWN
    assert (result.modules[0].frobenius, result.modules[0].singular_values) == (None, [])
    assert result.modules[1].frobenius is not None


def test_zero_updates(make_adapter: Any) -> None:
    zero = {f"{PREFIX}.{i}.self_attn.q_proj.lora_B.weight": np.zeros((24, 4)) for i in range(3)}
    result = judged(make_adapter(**zero))
    (finding,) = (f for f in result.findings if f.code == "integrity.zero-update")
    assert finding.message.count("q_proj") == 3


def test_rank_of_another_config(make_adapter: Any) -> None:
    result = judged(make_adapter(config={"r": 16}))
    assert "integrity.rank-mismatch" in codes(result)
    assert "ranks disagree" in result.verdict.reasons[0]
    assert "integrity.rank-mismatch" not in codes(
        judged(make_adapter("patterned", config={"r": 16, "rank_pattern": {"[qv]_proj": 4}}))
    )


def test_one_factor_missing(make_adapter: Any) -> None:
    result = judged(make_adapter(**{f"{Q0}.lora_A.weight": None}))
    assert severity(result, "integrity.unpaired-factor") is Severity.HIGH
    assert len(result.modules) == 5
    assert "1 of 6 modules" in result.verdict.reasons[0]


@pytest.mark.parametrize(("alpha", "extreme"), [(8, False), (-8, True), (1e6, True), (0, True)])
def test_extreme_scale(make_adapter: Any, alpha: float, extreme: bool) -> None:
    found = codes(judged(make_adapter(config={"lora_alpha": alpha})))
    assert ("integrity.alpha-extreme" in found) is extreme


@pytest.mark.parametrize("value", ["8", [], {"a": 1}, True])
def test_config_values_of_the_wrong_type(make_adapter: Any, value: Any) -> None:
    result = judged(make_adapter(config={"lora_alpha": value}))
    assert "integrity.config-type" in codes(result)
    assert result.verdict.label is Label.UNKNOWN


def test_targets_that_do_not_fit(make_adapter: Any) -> None:
    found = codes(judged(make_adapter(config={"target_modules": ["q_proj", "gate_proj"]})))
    assert {"integrity.target-missing", "integrity.untargeted-module"} <= found
    assert not codes(judged(make_adapter(config={"target_modules": r".*\.[qv]_proj"}))) & {
        "integrity.target-missing",
        "integrity.untargeted-module",
    }


def test_an_expression_that_would_never_end(make_adapter: Any) -> None:
    evil = {"target_modules": r"(.*a|.*b|.*)*x$", "rank_pattern": {"(a+)+$": 4}}
    result = judged(make_adapter(config=evil))
    assert result.timing_s < 30
    assert result.verdict.label is Label.UNKNOWN


@pytest.mark.parametrize(
    ("tensor", "shape", "code"),
    [
        ("base_model.model.model.embed_tokens.weight", (50, 24), "payload.embedding"),
        ("base_model.model.lm_head.weight", (50, 24), "payload.embedding"),
        ("base_model.model.classifier.weight", (2, 24), "payload.classifier-head"),
        ("base_model.model.score.modules_to_save.weight", (2, 24), "payload.classifier-head"),
        (f"{Q0}.lora_B.bias", (24,), "payload.bias"),
        ("base_model.model.model.norm.weight", (24,), "payload.norm"),
        (
            "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
            (3, 24),
            "payload.token-delta",
        ),
        ("prompt_embeddings", (8, 24), "payload.soft-prompt"),
        ("left.over", (3,), "payload.unexplained"),
        (f"{Q0}.lora_surprise.weight", (3, 3), "payload.unexplained"),
    ],
)
def test_payload_is_reported(
    make_adapter: Any, tensor: str, shape: tuple[int, ...], code: str
) -> None:
    result = judged(make_adapter(**{tensor: np.ones(shape)}))
    assert code in codes(result)


def test_activated_lora(make_adapter: Any) -> None:
    result = judged(make_adapter(config={"alora_invocation_tokens": [5, 6, 7]}))
    (finding,) = (f for f in result.findings if f.code == "payload.invocation-tokens")
    assert "[5, 6, 7]" in finding.message
    assert "it switches on after a token sequence" in result.verdict.reasons


def test_dora_is_partial(make_adapter: Any) -> None:
    magnitude = {
        f"{PREFIX}.{i}.self_attn.{r}.lora_magnitude_vector": np.ones(24)
        for i in range(3)
        for r in ("q_proj", "v_proj")
    }
    result = judged(make_adapter(config={"use_dora": True}, **magnitude))
    assert {"method.partial", "payload.magnitude"} <= codes(result)
    assert result.adapter is not None
    assert result.adapter.exactness == "direction"


def test_a_method_without_an_exact_update(make_adapter: Any) -> None:
    folder = make_adapter(config={"peft_type": "IA3"})
    save_file({f"{Q0}.ia3_l": np.ones((24, 1))}, folder / "adapter_model.safetensors")
    result = judged(folder)
    assert "method.unsupported" in codes(result)
    assert "ia3_l" in result.verdict.reasons[0]
    assert result.adapter is not None
    assert (result.adapter.peft_type, result.adapter.n_modules) == ("IA3", 1)


def test_pissa_needs_its_initial_adapter(make_adapter: Any) -> None:
    final = make_adapter("final", config={"init_lora_weights": "pissa"}, seed=1)
    assert "method.mutated-init" in codes(judged(final))
    start = make_adapter("start", config={"init_lora_weights": "pissa"}, seed=2)
    result = judged(final, initial_adapter=start)
    assert "method.mutated-init" not in codes(result)
    states = [load_file(folder / "adapter_model.safetensors") for folder in (final, start)]
    first, second = (s[f"{Q0}.lora_B.weight"] @ s[f"{Q0}.lora_A.weight"] for s in states)
    expected = np.linalg.norm(2.0 * (first - second).astype(float))
    assert result.modules[0].frobenius == pytest.approx(expected, rel=1e-5)


def test_a_file_without_config(make_adapter: Any) -> None:
    folder = make_adapter()
    (folder / "adapter_config.json").unlink()
    result = judged(folder)
    assert "integrity.no-config" in codes(result)
    assert "so the scale is unknown" in result.verdict.reasons[0]


def test_files_beside_it(make_adapter: Any) -> None:
    folder = make_adapter(config={"auto_mapping": {"parent_library": "evil.code"}})
    (folder / "modeling_evil.py").write_text("print('hello')")
    (folder / "optimizer.pt").write_bytes(b"\x80\x02}.")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ x }}")
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "m.M"}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ y }}"}))
    result = judged(folder)
    assert {"file.code-beside", "file.pickle", "file.tokenizer", "file.chat-template"} <= codes(
        result
    )
    custom = [f.location.tensor for f in result.findings if f.code == "file.custom-code"]
    assert sorted(map(str, custom)) == ["auto_map", "auto_mapping"]


@pytest.mark.parametrize("library", ["transformers.models.gpt2.modeling_gpt2", "peft.peft_model"])
def test_libraries_that_peft_imports_itself(make_adapter: Any, library: str) -> None:
    result = judged(make_adapter(config={"auto_mapping": {"parent_library": library}}))
    assert "file.custom-code" not in codes(result)


def test_worst_finding_first(make_adapter: Any) -> None:
    result = judged(make_adapter(**{f"{Q0}.lora_A.weight": None, "left.over": np.ones(3)}))
    ranks = [finding.severity.rank for finding in result.findings]
    assert ranks == sorted(ranks, reverse=True)
    assert len(ranks) >= 2


def test_out_of_time(make_adapter: Any) -> None:
    result = judged(make_adapter(), limits={"max_seconds": 1e-9})
    assert result.verdict.label is Label.UNKNOWN
    assert "file.limit-reached" in codes(result)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


@pytest.mark.parametrize("content", [b"", POINTER, b"\0" * 9])
def test_no_weights_in_the_file(make_adapter: Any, content: bytes) -> None:
    folder = make_adapter()
    (folder / "adapter_model.safetensors").write_bytes(content)
    result = judged(folder)
    assert result.adapter is None
    assert result.verdict.label is Label.UNKNOWN
    assert result.worst() is not None


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"r": 16, "rank_pattern": {"(?i)zzz": 4}}, "integrity.pattern-skipped"),
        ({"r": 16, "rank_pattern": [1]}, "integrity.config-type"),
        ({"rank_pattern": {"q_proj": "4"}}, "integrity.config-type"),
        ({"target_modules": "(?i).*proj"}, "integrity.pattern-skipped"),
        ({"target_modules": 5}, "integrity.config-type"),
        ({"target_modules": ["q_proj", 5]}, "integrity.config-type"),
    ],
)
def test_what_cannot_be_compared_is_said(
    make_adapter: Any, config: dict[str, Any], code: str
) -> None:
    result = judged(make_adapter(config=config))
    assert code in codes(result)
    assert "could not be compared with its config" in " ".join(result.verdict.reasons)


def test_many_names_and_modules_keep_to_the_time(make_adapter: Any) -> None:
    many = [f"layers.{i}.x{i}" for i in range(20_000)]
    config = {"target_modules": [*many, "q_proj"], "rank_pattern": dict.fromkeys(many, 3)}
    found = codes(judged(make_adapter(config=config)))
    assert {"integrity.target-missing", "integrity.untargeted-module"} <= found
    assert "integrity.rank-mismatch" not in found


def test_running_out_of_time_while_comparing_is_a_finding(make_adapter: Any) -> None:
    with open_adapter(make_adapter()) as adapter:
        agreement = check_integrity(replace(adapter, deadline=Deadline(1e-9)))
    assert {finding.code for finding in agreement.findings} == {"file.limit-reached"}
    assert all("ran out of time" in clause for clause in agreement.incomplete)
    assert len(agreement.incomplete) == 2


class Harmful:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/peftguard-was-here",)


@pytest.mark.parametrize("protocol", [0, 4])
@pytest.mark.parametrize("name", ["adapter_model.bin", "optimizer.pt", "x.pkl", "runs/args.bin"])
def test_a_harmful_pickle_beside_the_weights(make_adapter: Any, name: str, protocol: int) -> None:
    folder = make_adapter()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(Harmful(), protocol=protocol))
    result = judged(folder)
    messages = [f.message for f in result.findings if f.code == "file.code-beside"]
    assert any(name in message and "system" in message for message in messages)
    assert severity(result, "file.code-beside") is Severity.HIGH
    assert result.verdict.label is Label.UNKNOWN


def test_a_harmful_member_of_an_archive_beside_the_weights(make_adapter: Any) -> None:
    folder = make_adapter()
    with zipfile.ZipFile(folder / "training_args.bin", "w") as archive:
        archive.writestr("training_args/data.pkl", pickle.dumps(Harmful(), protocol=2))
    assert "file.code-beside" in codes(judged(folder))


@pytest.mark.parametrize(
    "content", [pickle.dumps({"lr": 0.1}), pickle.dumps(Path("x")), b"\x80\x04", b"no pickle", b""]
)
def test_an_ordinary_file_beside_the_weights(make_adapter: Any, content: bytes) -> None:
    folder = make_adapter()
    (folder / "training_args.bin").write_bytes(content)
    assert codes(judged(folder)) <= {"file.pickle", "weights.outlier-module"}


def test_a_long_pickle_beside_the_weights_is_a_gap(make_adapter: Any) -> None:
    folder = make_adapter()
    (folder / "optimizer.pt").write_bytes(pickle.dumps(b"x" * 5000, protocol=4))
    result = judged(folder, limits={"max_header_bytes": 4096})
    assert "file.limit-reached" in codes(result)
    assert result.adapter is not None


@pytest.mark.parametrize("name", ["preprocessor_config.json", "sub/anything.json"])
def test_auto_map_in_any_json(make_adapter: Any, name: str) -> None:
    folder = make_adapter()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"auto_map": {"AutoProcessor": "m.M"}}))
    (folder / "vocab.json").write_text(json.dumps({"auto_map": 7}))
    (folder / "trainer_state.json").write_text("[]")
    result = judged(folder)
    assert [f.location.file for f in result.findings if f.code == "file.custom-code"] == [name]
    assert "file.malformed" not in codes(result)


def test_auto_map_in_the_adapter_config(make_adapter: Any) -> None:
    result = judged(make_adapter(config={"auto_map": {"AutoModel": "m.M"}}))
    assert severity(result, "file.custom-code") is Severity.HIGH


def test_the_magnitude_stands_in_the_way_of_clean(make_adapter: Any) -> None:
    result = judged(make_adapter(**{f"{Q0}.lora_magnitude_vector": np.ones(24)}))
    assert "its DoRA magnitude was not judged" in result.verdict.reasons


@pytest.mark.parametrize(
    ("tensor", "shape"),
    [
        ("base_model.model.classifier.weight", (2, 24)),
        ("base_model.model.model.norm.weight", (24,)),
        (f"{Q0}.lora_B.bias", (24,)),
        (f"{Q0}.lora_magnitude_vector", (24,)),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_payload_that_is_not_finite(
    make_adapter: Any, tensor: str, shape: tuple[int, ...], value: float
) -> None:
    result = judged(make_adapter(**{tensor: np.full(shape, value)}))
    named = [f.location.tensor for f in result.findings if f.code == "integrity.non-finite"]
    assert tensor in named


@pytest.mark.parametrize("limits", [{"max_seconds": 1e-9}, {"max_file_bytes": 100}])
def test_the_reason_names_the_limit(make_adapter: Any, limits: dict[str, Any]) -> None:
    (reason, *_) = judged(make_adapter(), limits=limits).verdict.reasons
    assert "expected at most" in reason


def test_the_reason_names_the_pointer(make_adapter: Any) -> None:
    folder = make_adapter()
    (folder / "adapter_model.safetensors").write_bytes(POINTER)
    (reason, *_) = judged(folder).verdict.reasons
    assert "pointer" in reason.lower()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"layer_replication": [[0, 2], [0, 2]]}, "repeats layers"),
        ({"layers_to_transform": [0]}, "leave out modules"),
        ({"layers_to_transform": 0}, "leave out modules"),
        ({"layers_to_transform": list(range(9))}, None),
        ({"layers_to_transform": None, "layer_replication": None}, None),
        ({"exclude_modules": ["v_proj"]}, "leave out modules"),
        ({"exclude_modules": ["o_proj"]}, None),
        ({"target_modules": ["q_proj"]}, "leave out modules"),
    ],
)
def test_settings_that_make_something_else_of_the_updates(
    make_adapter: Any, config: dict[str, Any], said: str | None
) -> None:
    reasons = " ".join(judged(make_adapter(config=config)).verdict.reasons)
    told = [clause for clause in ("repeats layers", "leave out modules") if clause in reasons]
    assert told == ([] if said is None else [said])


def test_excluded_modules_that_have_tensors(make_adapter: Any) -> None:
    for excluded in (["v_proj"], r".*\.v_proj"):
        config = {"target_modules": ["q_proj", "v_proj"], "exclude_modules": excluded}
        result = judged(make_adapter(config=config))
        (finding,) = (one for one in result.findings if one.code == "integrity.untargeted-module")
        assert "excludes model.layers.0.self_attn.v_proj" in finding.message
        assert finding.location.module == "model.layers.0.self_attn.v_proj"
        assert result.verdict.label is Label.UNKNOWN


def test_targets_that_are_excluded_are_not_missed(make_adapter: Any) -> None:
    config = {"target_modules": ["q_proj", "v_proj", "lm_head"], "exclude_modules": ["lm_head"]}
    assert not codes(judged(make_adapter(config=config))) & {
        "integrity.target-missing",
        "integrity.untargeted-module",
    }


def test_a_module_of_no_layer_is_left_out_with_the_other_layers(make_adapter: Any) -> None:
    head = {
        "base_model__model__lm_head__lora_A__weight": np.ones((4, 24), np.float32),
        "base_model__model__lm_head__lora_B__weight": np.ones((24, 4), np.float32),
    }
    targets = ["q_proj", "v_proj", "lm_head"]
    for name, own in (("lm_head", targets), ("other", [*targets[:2], "head"])):
        config = {"target_modules": own, "layers_to_transform": [0, 1, 2]}
        result = judged(make_adapter(name, config=config, **head))
        # Named in full it is adapted whatever the layers, as PEFT does.
        assert ("integrity.untargeted-module" in codes(result)) is (name == "other")
