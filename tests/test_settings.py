"""Settings from a file and from the caller, and what is said when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftguard.errors import SettingsError
from peftguard.findings import Severity
from peftguard.settings import load_settings


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_defaults_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert (settings.fpr, settings.fail_on, settings.strict) == (0.01, Severity.CRITICAL, False)


def test_the_caller_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "peftguard.toml", "fpr = 0.05\njobs = 3\n[limits]\nmax_tensors = 7\n")
    settings = load_settings(jobs=2, strict=None, limits={"max_seconds": 9})
    assert (settings.fpr, settings.jobs, settings.strict) == (0.05, 2, False)
    assert (settings.limits.max_tensors, settings.limits.max_seconds) == (7, 9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fprr = 0.1", "fprr: no such setting; did you mean 'fpr'"),
        ("[limits]\nmax_tensor = 3", "limits.max_tensor: no such setting; did you mean 'max_ten"),
        ("fpr = 2", "fpr: input should be less than 1; found 2"),
        ("limits = 3", "limits:"),
        ("fail_on = 'loud'", "fail_on:"),
        ("x = = 1", "peftguard.toml: "),
        ("zzz = 1", "known: fpr"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(write(tmp_path / "peftguard.toml", text))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such settings file"):
        load_settings(tmp_path / "absent.toml")
