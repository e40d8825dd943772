"""What a scan can say, in one table: stable code, severity, and what to do about it.

Codes are part of the public contract (they are SARIF rule ids and other people's filters): add,
never rename. `found()` is the only way to make a `Finding`, so every code in use is listed here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field


class Severity(StrEnum):
    """How much a finding matters, least first."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Position in the order info < low < medium < high < critical."""
        return list(Severity).index(self)


class Location(BaseModel):
    """Where a finding is: a file of the adapter, a module or tensor in it, or neither."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str | None = Field(None, description="Path of the file, relative to the target.")
    module: str | None = Field(None, description="Module of the base model.")
    tensor: str | None = Field(None, description="Tensor name or config key in the file.")


class Finding(BaseModel):
    """One thing a person should know about an adapter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str = Field(description="Stable identifier, e.g. `integrity.rank-mismatch`.")
    severity: Severity
    message: str = Field(description="Why, in one line.")
    action: str = Field(description="What to do, in one line.")
    location: Location = Location()


class Rule(NamedTuple):
    """What every finding of one code shares."""

    severity: Severity
    title: str
    action: str


_I, _L, _M, _H, _C = Severity

RULES: dict[str, Rule] = {
    # file: can this be opened safely, and what else came with it
    "file.not-found": Rule(_H, "Target not found", "Check the path or hub id."),
    "file.malformed": Rule(
        _H, "File breaks its own format", "Do not load it; ask the publisher for an intact copy."
    ),
    "file.wrong-magic": Rule(
        _H, "Content is not what the suffix says", "Do not load it; the suffix is lying."
    ),
    "file.lfs-pointer": Rule(
        _M, "Git LFS pointer instead of weights", "Fetch the real file with `git lfs pull`."
    ),
    "file.truncated": Rule(_H, "File is cut short", "Download it again and compare its hash."),
    "file.limit-reached": Rule(
        _M, "A scan limit was reached", "Raise the limit in peftguard.toml if you trust the size."
    ),
    "file.needs-extra": Rule(
        _M, "An optional dependency is missing", "Install the extra that the message names."
    ),
    "file.executes-code": Rule(
        _C, "Loading this file runs code", "Do not load it. Treat the publisher as hostile."
    ),
    "file.unsafe-pickle": Rule(
        _H, "Pickle imports names outside torch's allow-list", "Ask for a .safetensors copy."
    ),
    "file.pickle": Rule(
        _L, "Weights are stored as a pickle", "Prefer a .safetensors copy of this adapter."
    ),
    "file.code-beside": Rule(
        _H, "Code or an archive lies beside the adapter", "Read it, or load without it."
    ),
    "file.custom-code": Rule(
        _H, "Config asks for code of its own", "Never load with trust_remote_code=True."
    ),
    "file.chat-template": Rule(
        _M, "The adapter brings its own chat template", "Diff it against the base model's."
    ),
    "file.tokenizer": Rule(
        _L, "The adapter brings tokenizer files", "Use the base model's tokenizer, or diff them."
    ),
    "file.symlink-outside": Rule(
        _M, "A link leads out of the input and was not followed", "Copy the real file in."
    ),
    "file.unread-weights": Rule(
        _M, "More weights lie here than were read", "Scan the other weight file by its own path."
    ),
    "file.duplicate-key": Rule(
        _H, "A key occurs twice", "Do not load it: readers disagree about which one counts."
    ),
    # method: is there an exact update
    "method.unsupported": Rule(
        _M, "No exact update without the base model", "Judge it by other means."
    ),
    "method.partial": Rule(
        _L, "Part of the change needs the base model", "Read the verdict as partial."
    ),
    "method.mutated-init": Rule(
        _M,
        "Initialisation makes the stored product differ from the change",
        "Scan with --initial-adapter, or a copy converted to plain LoRA.",
    ),
    # integrity: does the adapter agree with itself
    "integrity.no-config": Rule(
        _M, "No adapter_config.json", "Get the config: scale and method are guesses without it."
    ),
    "integrity.no-update": Rule(_M, "No weight update found", "Check that this is an adapter."),
    "integrity.rank-mismatch": Rule(
        _M, "Rank disagrees with the config", "Ask the publisher which config belongs to it."
    ),
    "integrity.alpha-extreme": Rule(
        _M, "Scale is extreme", "Check lora_alpha: it multiplies the whole update."
    ),
    "integrity.unpaired-factor": Rule(
        _H, "One factor of a pair is missing", "Do not load it; the file is incomplete."
    ),
    "integrity.shape-mismatch": Rule(
        _H, "Factors of a module do not fit together", "Do not load it; the file is inconsistent."
    ),
    "integrity.non-finite": Rule(
        _H, "NaN or infinite values", "Do not load it; its outputs would be undefined."
    ),
    "integrity.zero-update": Rule(
        _L, "A module's update is exactly zero", "Nothing to do; it may be untrained."
    ),
    "integrity.config-type": Rule(
        _M, "A config value has the wrong type", "Correct the config or ask for another copy."
    ),
    "integrity.pattern-skipped": Rule(
        _M, "A pattern in the config was not run", "Replace the expression by plain names."
    ),
    "integrity.target-missing": Rule(
        _L, "A target module has no tensors", "Check that the file is complete."
    ),
    "integrity.untargeted-module": Rule(
        _L, "Tensors for a module that the config does not target", "Loaders disagree about them."
    ),
    # payload: what else it changes
    "payload.embedding": Rule(
        _M, "Replaces whole embeddings", "Diff them against the base model's, row by row."
    ),
    "payload.module-to-save": Rule(
        _L, "Replaces whole modules", "Diff them against the base model's."
    ),
    "payload.classifier-head": Rule(
        _I, "Brings its own classifier head", "Expected for classifiers; it is not judged."
    ),
    "payload.token-delta": Rule(
        _H, "Edits single tokens", "Look at which tokens: this is a textbook trigger channel."
    ),
    "payload.invocation-tokens": Rule(
        _H, "Switches on after a token sequence", "An activated LoRA: know the sequence first."
    ),
    "payload.soft-prompt": Rule(
        _M, "Prepends a learned prompt", "Not a weight update; judge it by behaviour."
    ),
    "payload.bias": Rule(_L, "Changes bias terms", "Not part of the low-rank update; not judged."),
    "payload.norm": Rule(_L, "Changes normalisation weights", "Not judged."),
    "payload.magnitude": Rule(_I, "Rescales output rows (DoRA)", "Needs the base to be judged."),
    "payload.unexplained": Rule(
        _M, "Tensors that no method explains", "Ask what they are for before loading."
    ),
    # weights: what the update looks like
    "weights.outlier-module": Rule(
        _L, "A module stands apart from its peers", "Look at this layer first."
    ),
    "weights.rank-one": Rule(
        _L, "Nearly all energy in one direction", "Common in tiny adapters; look at this layer."
    ),
    # trigger: what a search on the base model found
    "trigger.confirmed": Rule(
        _C, "A trigger is proven", "Do not load it; `peftguard trigger` shows all of the proof."
    ),
    "trigger.phrase": Rule(
        _L,
        "A phrase turns answers, as a task's own words may",
        "Read it: does it belong to the task?",
    ),
    "trigger.cut-short": Rule(
        _L, "The trigger search ran out of time", "Raise --budget: what was left out is unknown."
    ),
    "trigger.not-run": Rule(
        _L, "The adapter could not be searched for a trigger", "Give the base that it was made for."
    ),
    "error.internal": Rule(_H, "peftguard failed on this adapter", "Please report it."),
}


def found(
    code: str,
    message: str,
    *,
    file: str | None = None,
    module: str | None = None,
    tensor: str | None = None,
    severity: Severity | None = None,
) -> Finding:
    """Make the finding `code`; `severity` overrides the table where a case is milder or worse."""
    rule = RULES[code]
    return Finding(
        code=code,
        severity=severity or rule.severity,
        message=message,
        action=rule.action,
        location=Location(file=file, module=module, tensor=tensor),
    )
