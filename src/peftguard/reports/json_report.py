"""The model as it is, as strict JSON, and the schema that describes it."""

from __future__ import annotations

from typing import Any

from peftguard.reports.strict import strict_json
from peftguard.results import SCHEMA_VERSION, Scan

_HOME = "https://raw.githubusercontent.com/peftguard/peftguard/main/src/peftguard/reports/schema"
SCHEMA_FILE = f"scan-{SCHEMA_VERSION}.schema.json"


def render(scan: Scan) -> str:
    """The scan as JSON; what is not a finite number is `null`."""
    return f"{strict_json(scan.model_dump(mode='json'))}\n"


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what `render` writes, made from the model."""
    body = Scan.model_json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{_HOME}/{SCHEMA_FILE}",
        **body,
        "title": f"peftguard scan, version {SCHEMA_VERSION}",
    }


def schema_text() -> str:
    """`schema()` as the package's schema file holds it."""
    return f"{strict_json(schema())}\n"
