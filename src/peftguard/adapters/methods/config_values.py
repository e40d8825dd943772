"""Values of a config that a stranger wrote: right in type and finite, or one clear error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from peftguard.errors import InputError


def number(value: object, key: str) -> float:
    """`value` as a finite float; whole numbers pass, texts, booleans and NaN do not."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            as_float = float(value)
        except OverflowError:
            as_float = math.inf
        if math.isfinite(as_float):
            return as_float
    raise wrong_type(key, "a finite number", value)


def whole(value: object, key: str, *, least: int) -> int:
    """`value` as an int of at least `least`; 8.0 passes, 8.5 does not."""
    as_float = number(value, key)
    if as_float < least or not as_float.is_integer():
        raise wrong_type(key, f"a whole number of at least {least}", value)
    return int(as_float)


def flag(config: Mapping[str, Any], key: str) -> bool:
    """A switch; absent and null mean off."""
    value = config.get(key)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise wrong_type(key, "true or false", value)


def mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object with text keys; absent and null mean empty."""
    value = config.get(key)
    if value is None:
        return {}
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return value
    raise wrong_type(key, "an object", value)


def names(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts; absent and null mean empty."""
    value = config.get(key)
    if value is None:
        return ()
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise wrong_type(key, "a list of names", value)


def wrong_type(key: str, expected: str, value: object) -> InputError:
    """The error for a value that is not `expected`."""
    return InputError(
        "config value of the wrong type",
        key=key,
        expected=expected,
        found=value,
        code="integrity.config-type",
    )
