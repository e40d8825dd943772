"""What the documentation says of the code is what the code says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from peftguard.findings import RULES, found
from peftguard.reports.codes import findings_page

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_page_of_codes_is_up_to_date() -> None:
    assert (ROOT / "docs" / "findings.md").read_text(encoding="utf-8") == findings_page()


def test_every_code_in_the_sources_is_listed() -> None:
    families = "file|method|integrity|payload|weights|trigger|verdict|error"
    quoted = re.compile(rf'"((?:{families})\.[a-z-]+)"')
    for source in (ROOT / "src").rglob("*.py"):
        assert set(quoted.findall(source.read_text(encoding="utf-8"))) <= RULES.keys(), source


def test_only_listed_codes_can_be_found() -> None:
    with pytest.raises(KeyError):
        found("file.no-such-code", "")


def test_ci_runs_the_command_of_the_readme() -> None:
    command = re.search(r"<!-- test -->\n```sh\n(.+?)\n```", README, re.DOTALL)
    assert command is not None
    assert "pytest" in command[1]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    extract = re.search(r"command=\$\((sed .+ README\.md)\)", script)
    assert extract is not None
    out = subprocess.run(
        ["bash", "-c", extract[1]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == command[1].strip()
