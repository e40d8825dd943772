"""A stranger's strings, made safe to show: what would act on a screen is spelled out instead."""

from __future__ import annotations


def visible(text: str, width: int = 200, *, ascii_only: bool = False) -> str:
    r"""`text` on one line, at most `width` characters, with nothing in it that a terminal obeys.

    Control characters, ANSI escapes, bidirectional overrides, zero-width and unassigned characters
    come out as `\x1b` or `\u202e`. What is too long loses its middle: a path is known by its end.

    Args:
        text: anything, of any length.
        width: longest result, in characters; at least 8.
        ascii_only: spell out every character beyond ASCII as well.
    """
    if len(text) > 2 * width:
        text = text[:width] + text[-width:]  # the rest could not be shown anyway
    shown = "".join(_spelled(character, ascii_only) for character in text)
    if len(shown) <= width:
        return shown
    gap = "..." if ascii_only else "…"
    tail = width // 3
    return shown[: width - tail - len(gap)] + gap + shown[-tail:]


def _spelled(character: str, ascii_only: bool) -> str:
    point = ord(character)
    if character.isprintable() and (point < 0x80 or not ascii_only):
        return character
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
