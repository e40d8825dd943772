"""Fields that came later: left out of JSON while unset, so that what was written before is equal.

A build is resumed only if its plan and recipes are those it was begun with, compared as JSON.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer


class Sparse(BaseModel):
    """A model some of whose fields are written only if they are set."""

    later: ClassVar[frozenset[str]] = frozenset({"layers", "paraphraser"})

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if v is not None or k not in self.later}
