"""The prompt that a causal model is asked with: text around one place for what is asked about."""

from __future__ import annotations

from pathlib import Path

from peftguard.errors import SettingsError
from peftguard.trigger.neutral import user_text
from peftguard.trigger.report import MAX_TEMPLATE

PLACE = "{text}"
"""Where a text goes in a template."""


def own_template(given: str) -> str:
    """A user's template: the text itself, or the whole of a file without the line's end.

    Raises:
        SettingsError: as of `checked`.
        TargetNotFound, MalformedFile, LimitExceeded: as of `user_text`.
    """
    if PLACE in given:
        return checked(given)
    return checked(user_text(Path(given)).removesuffix("\n"))


def checked(template: str) -> str:
    """A template.

    Raises:
        SettingsError: it lacks `{text}`, has it twice, or is too long.
    """
    if template.count(PLACE) != 1 or len(template) > MAX_TEMPLATE:
        raise SettingsError(
            f"a template has {PLACE} once and at most {MAX_TEMPLATE:,} characters; "
            f"found {template.count(PLACE)} times, {len(template):,} characters"
        )
    return template
