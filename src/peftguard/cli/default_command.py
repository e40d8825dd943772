"""Verbs under a verb that takes arguments itself: `trigger ADAPTER` beside `trigger replay`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

DEFAULT = "run"


class DefaultCommand(TyperGroup):
    """A group whose command `run` takes whatever does not begin with another command's name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Words as click wants them, the default command before them where none is named."""
        known = {*self.commands, *ctx.help_option_names}
        if args and args[0] not in known:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)
