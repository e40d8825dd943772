"""Markup in which every string is escaped unless it is already markup."""

from __future__ import annotations

import html

from peftguard.reports.visible import visible

MAX_TEXT = 1000
"""Longest string shown, in characters."""


class Markup(str):
    """Text that may stand in the page as it is."""


Child = str | None
"""Markup, or text to escape; None adds nothing."""


def tag(name: str, /, *children: Child, **attributes: str | int | float | None) -> Markup:
    """One element.

    Args:
        name: of the element.
        children: what it holds.
        attributes: `class_` stands for `class` and `aria_label` for `aria-label`; those that are
            None are left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Several children as one."""
    return Markup("".join(_markup(child) for child in children if child is not None))


def _markup(child: str) -> Markup:
    return child if isinstance(child, Markup) else Markup(_escaped(child))


def _escaped(text: str) -> str:
    """A stranger's names included: nothing in it acts as markup, nor on the screen."""
    return html.escape(visible(text, MAX_TEXT))
