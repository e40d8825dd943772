"""All finding codes as a page of documentation: `python -m peftguard.reports.codes`."""

from __future__ import annotations

from itertools import groupby

from peftguard.findings import RULES

_TITLES = {
    "file": "File safety: can it be opened, and what travels with it",
    "method": "Method: is there an exact update",
    "integrity": "Integrity: does the adapter agree with itself",
    "payload": "Payload: what it changes besides its low-rank update",
    "weights": "Weights: what the update looks like",
    "trigger": "Trigger: what a search on the base model found",
    "error": "Errors",
}


def findings_page() -> str:
    """Markdown with one table a family of codes, in the order of `RULES`."""
    lines = [
        "# Finding codes",
        "Made by `python -m peftguard.reports.codes`. Codes are added, never renamed; a scan may",
        "give a case a milder or worse severity than the one listed.",
    ]
    for family, codes in groupby(RULES, key=lambda code: code.partition(".")[0]):
        lines += ["", f"## {_TITLES[family]}", "| code | severity | meaning | what to do |"]
        lines += ["|---|---|---|---|"]
        lines += [
            f"| `{code}` | {rule.severity} | {rule.title} | {rule.action} |"
            for code in codes
            for rule in [RULES[code]]
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(findings_page(), end="")
