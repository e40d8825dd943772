"""SARIF 2.1.0, for code scanning: a result a finding, and one a verdict that is not clean."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from peftguard.findings import RULES, Finding, Location, Rule, Severity
from peftguard.reports.strict import strict_json
from peftguard.reports.uris import uri_of
from peftguard.reports.visible import visible
from peftguard.reports.wording import standing
from peftguard.results import Label, Result, Scan

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
INFORMATION = "https://github.com/peftguard/peftguard"

_Object = dict[str, Any]

_LEVELS = {
    Severity.INFO: "note",
    Severity.LOW: "note",
    Severity.MEDIUM: "warning",
    Severity.HIGH: "error",
    Severity.CRITICAL: "error",
}
# GitHub code scanning reads these: above 9 critical, from 7 high, from 4 medium, below low.
_SECURITY_SEVERITY = {
    Severity.INFO: "0.1",
    Severity.LOW: "3.0",
    Severity.MEDIUM: "5.5",
    Severity.HIGH: "8.0",
    Severity.CRITICAL: "9.5",
}
_VERDICTS = {
    Label.UNKNOWN: Rule(
        Severity.MEDIUM,
        "The adapter could not be judged",
        "Do not read this as clean; settle the reasons given.",
    ),
    Label.SUSPICIOUS: Rule(
        Severity.HIGH,
        "A detector flags the weights",
        "Do not load it before somebody has looked at it.",
    ),
    Label.BACKDOORED: Rule(Severity.CRITICAL, "The adapter is proven harmful", "Do not load it."),
}
_RULES = RULES | {f"verdict.{label}": rule for label, rule in _VERDICTS.items()}
_RULE_INDEX = {code: index for index, code in enumerate(_RULES)}


def render(scan: Scan) -> str:
    """One SARIF log with one run."""
    run = _Run()
    for result in scan.results:
        run.add(result)
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run.as_object(scan)]}
    return f"{strict_json(log)}\n"


@dataclass(slots=True)
class _Run:
    """What grows adapter by adapter: results, and the files that they point to."""

    results: list[_Object] = field(default_factory=list)
    notifications: list[_Object] = field(default_factory=list)
    artifacts: dict[str, _Object] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        for digest in result.files:
            hashes = {"sha-256": digest.sha256}
            self.artifact(uri_of(result, digest.path), length=digest.n_bytes, hashes=hashes)
        for code, severity, text, location in _reports(result):
            self.results.append(self.result(result, code, severity, text, location))
        self.notifications += [_notification(finding) for finding in _failures(result)]

    def result(
        self, result: Result, code: str, severity: Severity, text: str, location: Location
    ) -> _Object:
        uri = uri_of(result, location.file or _weights(result))
        return {
            "ruleId": code,
            "ruleIndex": _RULE_INDEX[code],
            "level": _LEVELS[severity],
            "message": {"text": _message(text)},
            "locations": [_location(uri, self.artifact(uri), location)],
            "partialFingerprints": {"findingHash/v1": self.fingerprint(code, uri, location)},
            "properties": {"severity": severity.value},
        }

    def artifact(self, uri: str, **known: object) -> int:
        """Index of the artifact; it is added when it is first met."""
        new = {"location": _artifact_location(uri), "roles": ["analysisTarget"]}
        self.artifacts.setdefault(uri, new).update(known)
        return self.positions.setdefault(uri, len(self.positions))

    def fingerprint(self, code: str, uri: str, location: Location) -> str:
        """Stays the same when only the wording or the figures of a finding change."""
        key = json.dumps([code, uri, location.module, location.tensor])
        self.seen[key] += 1
        return hashlib.sha256(f"{key}{self.seen[key]}".encode()).hexdigest()[:32]

    def as_object(self, scan: Scan) -> _Object:
        invocation: _Object = {"executionSuccessful": not self.notifications}
        if self.notifications:
            invocation["toolExecutionNotifications"] = self.notifications
        return {
            "tool": {"driver": _driver(scan)},
            "automationDetails": {"id": "peftguard/"},
            "invocations": [invocation],
            "originalUriBaseIds": {
                "%SRCROOT%": {"description": {"text": "The folder that the scan was run in."}}
            },
            "artifacts": list(self.artifacts.values()),
            "results": self.results,
        }


def _reports(result: Result) -> Iterator[tuple[str, Severity, str, Location]]:
    """(code, severity, text, where) of everything to report about an adapter, the verdict first."""
    verdict = result.verdict
    rule = _VERDICTS.get(verdict.label)
    if rule is not None:
        text = f"{verdict.label}: {'; '.join(verdict.reasons)}. {standing(verdict)}"
        yield f"verdict.{verdict.label}", rule.severity, text, Location()
    for finding in result.findings:
        text = f"{finding.message.rstrip('.')}. {finding.action}"
        yield finding.code, finding.severity, text, finding.location


def _driver(scan: Scan) -> _Object:
    return {
        "name": scan.tool.name,
        "version": scan.tool.version,
        "informationUri": INFORMATION,
        "rules": [_rule(code, rule) for code, rule in _RULES.items()],
    }


def _rule(code: str, rule: Rule) -> _Object:
    return {
        "id": code,
        "shortDescription": {"text": f"{rule.title}."},
        "fullDescription": {"text": f"{rule.title}."},
        "help": {"text": rule.action},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {
            "security-severity": _SECURITY_SEVERITY[rule.severity],
            "tags": ["security", "machine-learning", code.partition(".")[0]],
        },
    }


def _location(uri: str, index: int, location: Location) -> _Object:
    place: _Object = {
        "physicalLocation": {"artifactLocation": _artifact_location(uri) | {"index": index}}
    }
    logical = [
        {"fullyQualifiedName": visible(name, 1024), "kind": kind}
        for name, kind in ((location.module, "module"), (location.tensor, "member"))
        if name
    ]
    return place | ({"logicalLocations": logical} if logical else {})


def _artifact_location(uri: str) -> _Object:
    absolute = uri.startswith(("file://", "https://"))
    return {"uri": uri} if absolute else {"uri": uri, "uriBaseId": "%SRCROOT%"}


def _message(text: str) -> str:
    """Plain text: no embedded link `[x](y)` and no placeholder `{0}` may come from a stranger."""
    shown = visible(text, 2000).replace("](", "] (")
    return shown.replace("{", "{{").replace("}", "}}")


def _weights(result: Result) -> str | None:
    return result.files[0].path if result.files else None


def _failures(result: Result) -> list[Finding]:
    return [finding for finding in result.findings if finding.code == "error.internal"]


def _notification(finding: Finding) -> _Object:
    return {"level": "error", "message": {"text": _message(finding.message)}}
