"""JSON that every parser accepts: no NaN, no infinity, no half of a surrogate pair."""

from __future__ import annotations

import json
import math
from typing import Any


def strict_json(value: Any, *, indent: int | None = 2) -> str:
    """`value` as ASCII JSON; a number that is not finite becomes `null`.

    Characters beyond ASCII are written as escapes, so that nothing in the text acts on a terminal.
    """
    return json.dumps(_clean(value), indent=indent, allow_nan=False)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value
