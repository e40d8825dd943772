"""The prompt that a causal model is asked with: text around one place for what is asked about."""

from __future__ import annotations

from pathlib import Path

from peftguard.adapters.filenames import printable
from peftguard.errors import SettingsError, TargetNotFound
from peftguard.trigger.neutral import user_text
from peftguard.trigger.report import MAX_TEMPLATE

PLACE = "{text}"
"""Where a text goes in a template."""
LENGTH = 4
"""Tokens of a freely written answer that are looked at."""


def own_template(given: str) -> str:
    """A user's template: the text itself, or the whole of a file without the line's end.

    Raises:
        SettingsError: as of `checked`.
        TargetNotFound, MalformedFile, LimitExceeded: as of `user_text`.
    """
    if PLACE in given:
        return checked(given)
    path = Path(given)
    try:
        text = user_text(path)
    except TargetNotFound as error:
        problem = f"{error.problem}, and no prompt with {PLACE} in it"
        raise TargetNotFound(problem, file=error.file) from None
    return checked(text.removesuffix("\n"), printable(path.name))


def checked(template: str, file: str = "") -> str:
    """A template, perhaps out of a file.

    Raises:
        SettingsError: it lacks `{text}`, has it twice, or is too long.
    """
    if template.count(PLACE) != 1 or len(template) > MAX_TEMPLATE:
        where = f"{file}: " if file else ""
        raise SettingsError(
            f"{where}a template has {PLACE} once and at most {MAX_TEMPLATE:,} characters; "
            f"found {template.count(PLACE)} times, {len(template):,} characters"
        )
    return template
