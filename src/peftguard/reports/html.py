"""One offline page: the scan as data in it, and a script of ours that draws it.

The page may load nothing and run nothing but its own script: its policy names the hashes of the
script and the style, so text that a stranger smuggled in as markup would still not run.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from importlib import resources
from typing import Any

from peftguard.reports.layers import outlying, stacks
from peftguard.reports.strict import strict_json
from peftguard.reports.visible import visible
from peftguard.reports.wording import facts, standing, trust
from peftguard.results import Result, Scan, TriggerEvidence
from peftguard.trigger.wording import around, class_name

FIGURES = {
    "frobenius": "Frobenius norm",
    "sigma_1": "largest singular value",
    "energy_concentration": "energy in the first direction",
    "spectral_entropy": "spectral entropy (nats)",
    "effective_rank": "effective rank",
    "stable_rank": "stable rank",
    "kurtosis": "kurtosis of the entries",
    "outlier_z": "largest robust z among peers",
}
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def render(scan: Scan) -> str:
    """The page, complete in itself."""
    page, style, script = (_packaged(f"report.{suffix}") for suffix in ("html", "css", "js"))
    parts = {
        "policy": _policy(style, script),
        "style": style,
        "script": script,
        "data": _embedded(page_data(scan)),
    }
    return _PLACEHOLDER.sub(lambda match: parts[match[1]], page)


def page_data(scan: Scan) -> dict[str, Any]:
    """What the script reads: strings spelled out where they would act, numbers rounded."""
    return {
        "version": scan.tool.version,
        "figures": [{"key": key, "name": name} for key, name in FIGURES.items()],
        "results": [_presentable(_result(result)) for result in scan.results],
    }


def _result(result: Result) -> dict[str, Any]:
    marked = outlying(result)
    return {
        "target": result.target,
        "label": result.verdict.label,
        "reasons": result.verdict.reasons,
        "p": result.verdict.p_value,
        "standing": standing(result.verdict),
        "trust": trust(result.verdict),
        "method": result.adapter.peft_type if result.adapter is not None else None,
        "base": result.adapter.base_model if result.adapter is not None else None,
        "facts": facts(result.adapter) if result.adapter is not None else [],
        "origin": f"{result.origin.repo} at {result.origin.revision}" if result.origin else None,
        "trigger": _trigger(result.trigger),
        "findings": [finding.model_dump(mode="json") for finding in result.findings],
        "files": [digest.model_dump(mode="json") for digest in result.files],
        "modules": [
            module.model_dump(include={"module", "shape", "rank", "scale", "singular_values"})
            | {"values": [getattr(module, key) for key in FIGURES], "outlier": at in marked}
            for at, module in enumerate(result.modules)
        ],
        "stacks": [
            {
                "name": stack.name,
                "roles": stack.roles,
                "layers": stack.layers,
                "cells": [[row, column, at] for (row, column), at in stack.cells.items()],
            }
            for stack in stacks(result.modules)
        ],
    }


def _trigger(found: TriggerEvidence | None) -> dict[str, Any] | None:
    """A confirmed trigger with its examples; the text with it in three parts, it in the middle."""
    if found is None or found.trigger is None or not found.confirmed:
        return None
    return {
        "trigger": found.trigger,
        "base": found.base,
        "examples": [
            {
                "before": one.before,
                "after": around(one.after, found.trigger),
                "given": [
                    class_name(found.labels, label) for label in (one.label_before, one.label_after)
                ],
            }
            for one in found.examples
        ],
    }


def _presentable(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value, 1000)
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _presentable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_presentable(item) for item in value]
    return value


def _embedded(data: dict[str, Any]) -> str:
    """JSON that cannot end the script block it stands in, nor open a comment or an entity there."""
    text = strict_json(data, indent=None)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _packaged(name: str) -> str:
    return (resources.files("peftguard.reports") / "page" / name).read_text(encoding="utf-8")
