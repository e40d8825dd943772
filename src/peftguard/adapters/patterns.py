r"""Names of modules against expressions that a stranger wrote, as PEFT matches them.

PEFT reads the keys of `rank_pattern` and `alpha_pattern` as `(.*\.)?(key)$` and takes the first
that matches; a `target_modules` string is a full match, a list is a match of suffixes. Plain names
never reach a regex engine. Everything else runs in one with a time limit, and only where that
engine agrees with the one PEFT uses; otherwise the caller is told, and no default takes its place.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Any

from peftguard.errors import InputError

MAX_LENGTH = 512
"""Longest expression that is run, in characters."""
MAX_EXPRESSIONS = 64
"""Most expressions (not plain names) of one mapping that are run."""
MATCH_SECONDS = 0.05
"""Wall time for one match."""
TOTAL_SECONDS = 0.5
"""Wall time for all slow matches of one expression; after that it is not run again."""

_PLAIN = re.compile(r"[\w.-]*")
_FOREIGN = re.compile(
    r"""\(\?(?![:=!]|<[=!])     # groups other than plain ones and lookarounds
    | \\(?![AbBdDsSwWZ\d])\w    # escapes that only one engine has
    | \{(?!\d*,?\d*\})          # fuzzy matching
    | \[\[|\[: | [-&|~]{2}      # nested sets, POSIX classes, set operations
    """,
    re.VERBOSE,
)


def first_match(expressions: Collection[str], module: str) -> str | None:
    """The expression whose value PEFT uses for `module`, None where it uses the default.

    Args:
        expressions: keys of a `rank_pattern` or `alpha_pattern`, in order.
        module: dotted path in the base model, without PEFT's prefix.

    Raises:
        InputError: `integrity.pattern-skipped`, one that could have matched was not run.
    """
    n_expressions = sum(not is_plain(expression) for expression in expressions)
    if n_expressions > MAX_EXPRESSIONS:
        raise _skipped(f"{n_expressions} expressions", f"at most {MAX_EXPRESSIONS} expressions")
    for expression in expressions:
        if is_plain(expression):
            matches = _ends_with(module, expression)
        else:
            matches = _compiled(expression, as_suffix=True).matches(module)
        if matches:
            return expression
    return module if module in expressions else None


def targets(target_modules: str | Iterable[str], module: str) -> bool:
    """True if PEFT adapts `module` under this `target_modules`; `all-linear` takes a model.

    Raises:
        InputError: `integrity.pattern-skipped`, the expression was not run.
    """
    if not isinstance(target_modules, str):
        return any(module == name or module.endswith(f".{name}") for name in target_modules)
    if is_plain(target_modules):
        return len(target_modules) == len(module) and _same(target_modules, module)
    return _compiled(target_modules, as_suffix=False).matches(module)


def is_plain(expression: str) -> bool:
    """True if the expression is a name: word characters, dots and hyphens."""
    return _PLAIN.fullmatch(expression) is not None


def _ends_with(module: str, name: str) -> bool:
    start = len(module) - len(name)
    on_boundary = start == 0 or (start > 0 and module[start - 1] == ".")
    return on_boundary and _same(name, module[start:])


def _same(name: str, text: str) -> bool:
    """Equality, but a dot in `name` stands for any character, as it does in an expression."""
    return name == text or all(a in (b, ".") for a, b in zip(name, text, strict=True))


class _Expression:
    """One compiled expression and the time it has cost."""

    def __init__(self, source: str, match: Callable[..., Any]) -> None:
        self._source, self._match = source, match
        self._spent = 0.0

    def matches(self, module: str) -> bool:
        if self._spent > TOTAL_SECONDS:
            raise _skipped(self._source, f"under {TOTAL_SECONDS:g} s in all")
        start = time.monotonic()
        try:
            return self._match(module, timeout=MATCH_SECONDS) is not None
        except TimeoutError:
            self._spent = TOTAL_SECONDS * 2
            raise _skipped(self._source, f"under {MATCH_SECONDS:g} s a match") from None
        finally:
            elapsed = time.monotonic() - start
            if elapsed > MATCH_SECONDS / 10:
                self._spent += elapsed


@lru_cache(maxsize=1024)
def _compiled(source: str, *, as_suffix: bool) -> _Expression:
    if len(source) > MAX_LENGTH:
        raise _skipped(source, f"at most {MAX_LENGTH} characters")
    if _FOREIGN.search(source):
        raise _skipped(source, "an expression that every engine reads alike")
    import regex

    try:
        wrapped = regex.compile(rf"(.*\.)?({source})$" if as_suffix else source, regex.V0)
    except (regex.error, RecursionError, OverflowError, MemoryError):
        raise _skipped(source, "a valid expression") from None
    return _Expression(source, wrapped.match if as_suffix else wrapped.fullmatch)


def _skipped(source: str, expected: str) -> InputError:
    return InputError(
        "an expression in the config was not run",
        expected=expected,
        found=source,
        code="integrity.pattern-skipped",
    )
