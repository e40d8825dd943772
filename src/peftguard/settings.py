"""How to scan: one model behind the command line's help, `peftguard.toml` and the Python call."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peftguard.errors import SettingsError
from peftguard.findings import Severity
from peftguard.limits import Limits

FILE_NAME = "peftguard.toml"


class ScanSettings(BaseModel):
    """Every choice of `peftguard scan`, with its default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fpr: float = Field(0.01, gt=0, lt=1, description="False-positive rate to flag at.")
    detectors: list[str] | None = Field(
        None,
        description="Detectors to use, by name or folder; default: installed ones that cover.",
    )
    fail_on: Severity = Field(
        Severity.CRITICAL, description="Exit with 1 if a finding is this severe or worse."
    )
    strict: bool = Field(False, description="Exit with 1 on `unknown` as well.")
    jobs: int = Field(1, ge=1, description="Adapters scanned at the same time.")
    cache: bool = Field(True, description="Reuse results of unchanged adapters.")
    offline: bool = Field(False, description="Never use the network; hub ids come from the cache.")
    initial_adapter: Path | None = Field(
        None, description="Adapter as it was initialised, for PiSSA and its kin."
    )
    base: str | None = Field(
        None,
        description="Base model to search for a trigger on: minilm, smollm2, a folder or a hub id.",
    )
    benign: list[str] = Field(
        [],
        description="Trusted adapter of the same task, for the trigger search to tell the task's "
        "own words by; passed over, and that is said, where it has another number of classes.",
    )
    budget: float = Field(
        60.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds after which no further stage of an adapter's trigger search begins.",
    )
    limits: Limits = Field(Limits(), description="Bounds on what is read of one adapter.")


def setting_help(name: str, model: type[BaseModel] = ScanSettings) -> str:
    """The description of a setting, for the command line's help."""
    return model.model_fields[name].description or ""


def limit_help(name: str) -> str:
    """The description of a limit, with its default."""
    limit = Limits.model_fields[name]
    return f"{limit.description} Default: {limit.default:,}."


def load_settings(path: Path | None = None, **overrides: Any) -> ScanSettings:
    """Settings from a TOML file, then from `overrides` that are not None.

    Args:
        path: the file; by default `peftguard.toml` in the working folder, if there is one.
        overrides: fields of `ScanSettings`, as a command line or caller gives them; `limits` is a
            mapping of single limits.

    Raises:
        SettingsError: the file is missing or malformed, or a key or value is not allowed.
    """
    given = _read_toml(path or Path(FILE_NAME), required=path is not None)
    limits = overrides.pop("limits", None) or {}
    given |= {key: value for key, value in overrides.items() if value is not None}
    if limits and isinstance(given.setdefault("limits", {}), dict):
        given["limits"] = {**given["limits"], **limits}
    try:
        return ScanSettings.model_validate(given)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _read_toml(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise SettingsError(f"{path}: no such settings file") from None
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from None


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    *parents, key = [str(part) for part in first["loc"]] or ["settings"]
    name = ".".join([*parents, key])
    if first["type"] != "extra_forbidden":
        return f"{name}: {first['msg'].lower()}; found {first['input']!r}"
    known = (Limits if parents == ["limits"] else ScanSettings).model_fields
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
    return f"{name}: no such setting{hint}"
