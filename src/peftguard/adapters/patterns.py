r"""Names of modules against expressions that a stranger wrote, as PEFT matches them.

PEFT reads the keys of `rank_pattern` and `alpha_pattern` as `(.*\.)?(key)$` and takes the first
that matches; a `target_modules` string is a full match, a list is a match of suffixes. Plain names
never reach a regex engine. Everything else runs in one with a time limit, and only where that
engine agrees with the one PEFT uses; otherwise the caller is told, and no default takes its place.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator
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
    return _prepared(tuple(expressions)).first_match(module)


class Expressions:
    """Keys of a `rank_pattern` or `alpha_pattern`, prepared once for any number of modules.

    Plain names are looked up, not tried one by one: a file may bring a hundred thousand of both.
    """

    def __init__(self, expressions: Collection[str]) -> None:
        unique = dict.fromkeys(expressions)  # of one that is given twice the first counts
        self._order = {expression: place for place, expression in enumerate(unique)}
        self._slow = [expression for expression in self._order if not is_plain(expression)]
        # By length, then by where the dots are: a dot in a name stands for any character.
        self._plain: dict[int, dict[tuple[int, ...], set[str]]] = {}
        for name in self._order:
            if is_plain(name):
                by_dots = self._plain.setdefault(len(name), {})
                by_dots.setdefault(_dots(name), set()).add(name)

    def first_match(self, module: str) -> str | None:
        """As the function of this name."""
        if len(self._slow) > MAX_EXPRESSIONS:
            expected = f"at most {MAX_EXPRESSIONS} expressions"
            raise _skipped(f"{len(self._slow)} expressions", expected)
        name = min(self._names(module), key=self._order.__getitem__, default=None)
        place = len(self._order) if name is None else self._order[name]
        for expression in self._slow:
            if self._order[expression] > place:
                break
            if _compiled(expression, as_suffix=True).matches(module):
                return expression
        if name is not None:
            return name
        return module if module in self._order else None

    def _names(self, module: str) -> Iterator[str]:
        """The plain names that match, in no order."""
        for suffix in suffixes(module):
            for dots, names in self._plain.get(len(suffix), {}).items():
                name = _masked(suffix, dots)
                if name in names:
                    yield name


def targets(target_modules: str | Collection[str], module: str) -> bool:
    """True if PEFT adapts `module` under this `target_modules`; `all-linear` takes a model.

    Names are best given as a set: each costs a look-up for every level of `module` only.

    Raises:
        InputError: `integrity.pattern-skipped`, the expression was not run.
    """
    if not isinstance(target_modules, str):
        return any(suffix in target_modules for suffix in suffixes(module))
    if is_plain(target_modules):
        return len(target_modules) == len(module) and _same(target_modules, module)
    return _compiled(target_modules, as_suffix=False).matches(module)


def suffixes(module: str) -> Iterator[str]:
    """`module`, and what follows each of its dots."""
    start = 0
    while True:
        yield module[start:]
        start = module.find(".", start) + 1
        if start == 0:
            return


def is_plain(expression: str) -> bool:
    """True if the expression is a name: word characters, dots and hyphens."""
    return _PLAIN.fullmatch(expression) is not None


def _dots(name: str) -> tuple[int, ...]:
    return tuple(place for place, character in enumerate(name) if character == ".")


def _masked(text: str, dots: tuple[int, ...]) -> str:
    """`text` with dots at these places."""
    if not dots:
        return text
    characters = list(text)
    for place in dots:
        characters[place] = "."
    return "".join(characters)


@lru_cache(maxsize=4)
def _prepared(expressions: tuple[str, ...]) -> Expressions:
    return Expressions(expressions)


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
