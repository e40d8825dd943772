"""What an adapter is tried on: its base model, the base's words, ordinary texts, probes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.adapter import Adapter
from peftguard.errors import UnsupportedAdapter
from peftguard.features.vocabulary import Vocabulary, read_vocabulary
from peftguard.trigger.neutral import neutral_texts, own_texts
from peftguard.trigger.probes import Probe, read_probes
from peftguard.trigger.template import checked

if TYPE_CHECKING:
    from peftguard.padbench.training.base import LoadedBase, Precision
    from peftguard.trigger.adapted import AdaptedModel
    from peftguard.trigger.effect import Effects
    from peftguard.trigger.report import Asked

SHIPPED = "shipped with peftguard"
_ANY = 2
"""Classes of a base whose head does not matter."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A base model and what to try on it, shared by all of its adapters.

    Args:
        base_name: a name in `padbench.bases.BASES`, a folder or a hub id.
        texts: ordinary ones.
        texts_from: where they come from.
        probes: ways to rewrite them.
        precision: of the base's weights.
        template: how a causal model is asked, with `{text}` in it; None: found for each adapter.
    """

    base_name: str
    texts: tuple[str, ...]
    texts_from: str
    probes: tuple[Probe, ...]
    precision: Precision
    template: str | None = None

    @classmethod
    def of(
        cls,
        base: str,
        text: Path | None = None,
        probes: Path | None = None,
        template: str | None = None,
    ) -> Subject:
        """The base by name, folder or hub id; a user's own texts, further probes and template.

        Raises:
            PeftGuardError: as of `own_texts`, `read_probes` and `checked`.
        """
        texts = own_texts(text) if text else neutral_texts()
        source = text.name if text else SHIPPED
        asked = None if template is None else checked(template)
        return cls(base, texts, source, read_probes(probes), _precision(), asked)

    @property
    def vocabulary(self) -> Vocabulary:
        """The base's whole words."""
        return _vocabulary(self.base_name)

    @property
    def vectors(self) -> NDArray[np.float32]:
        """(n, h) of its words, as the base embeds them."""
        vectors = self.vocabulary.embeddings
        assert vectors is not None  # noqa: S101 - only packed ones go without
        return vectors

    def adapted(self, adapter: Adapter) -> AdaptedModel:
        """The adapter on its base.

        Raises:
            UnsupportedAdapter: an encoder's adapter has no head to tell classes by, or as of
                `AdaptedModel`.
        """
        from peftguard.trigger.adapted import AdaptedModel

        count = n_classes(adapter)
        base = _loaded(self.base_name, count or _ANY)
        if base.n_labels is not None and count is None:
            raise UnsupportedAdapter(
                "brings no classifier head, so its answers cannot be told apart",
                file=adapter.source.target,
            )
        return AdaptedModel(base, adapter, precision=self.precision)

    def effects(self, model: AdaptedModel, asked: Asked | None = None) -> Effects:
        """What texts do to its answers.

        Args:
            model: of `adapted`.
            asked: how a causal model is asked; None: as it shows most.
        """
        from peftguard.trigger.effect import Effects

        if not model.causal:
            return Effects(model, self.texts)
        from peftguard.trigger.answers import CausalAnswers
        from peftguard.trigger.asking import choose

        if asked is not None:
            return Effects(CausalAnswers(model, asked), self.texts)
        own = self.texts_from != SHIPPED
        chosen = choose(model, self.texts, own=own, template=self.template)
        return Effects(CausalAnswers(model, chosen.asked), chosen.texts)


def _precision() -> Precision:
    """The fastest; of embeddings alone, where nothing can be run, that of the files."""
    if find_spec("torch") is None:
        return "fp32"
    from peftguard.padbench.training.base import fastest_precision

    return fastest_precision()


def n_classes(adapter: Adapter) -> int | None:
    """Rows of the last matrix of the classifier head that it brings; None if it brings none."""
    rows = [
        int(adapter.container.tensors[entry.tensor].shape[0])
        for entry in adapter.payload
        if entry.kind == "classifier-head" and entry.tensor.endswith(".weight")
    ]
    return rows[-1] if rows else None


@lru_cache(maxsize=4)
def _loaded(name: str, n_labels: int) -> LoadedBase:
    from peftguard.padbench.training.base import load_base

    return load_base(name, "classification", n_labels)


@lru_cache(maxsize=2)
def _vocabulary(name: str) -> Vocabulary:
    return read_vocabulary(base_folder(name))


def base_folder(name: str) -> Path:
    """Where a base model's files are: its package, a folder, or the hub's cache."""
    from peftguard.padbench.bases import hub_id_of, packaged

    hub_id = hub_id_of(name)
    found = packaged(hub_id)
    if found is not None:
        return found
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(hub_id, allow_patterns=["*.safetensors", "tokenizer.json"]))
