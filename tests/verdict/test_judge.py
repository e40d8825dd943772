"""Whole scans of single adapters: what is found, and that nothing is raised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from peftguard import scan
from peftguard.findings import Severity
from peftguard.results import Label, Result

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
