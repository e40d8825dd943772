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
from peftguard.adapters.filenames import printable
from peftguard.errors import PeftGuardError, SettingsError, UnsupportedAdapter
from peftguard.features.vocabulary import Vocabulary, read_vocabulary, weight_files
from peftguard.trigger.neutral import neutral_texts, own_texts
from peftguard.trigger.probes import Probe, read_probes
from peftguard.trigger.ready import on_this_machine, refuse_file
from peftguard.trigger.template import checked

if TYPE_CHECKING:
    from peftguard.padbench.training.base import LoadedBase, Precision
    from peftguard.trigger.adapted import AdaptedModel
    from peftguard.trigger.effect import Answering, Effects
    from peftguard.trigger.report import Asked

SHIPPED = "shipped with peftguard"
_NEEDED = ("*.safetensors", "tokenizer.json", "config.json")
MAX_CLASSES = 200
"""Every class is searched for, and a head of millions is no classifier's."""
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
        whole: whether it is to be run, so that all of a base on the hub is needed.
    """

    base_name: str
    texts: tuple[str, ...]
    texts_from: str
    probes: tuple[Probe, ...]
    precision: Precision
    template: str | None = None
    whole: bool = True

    @classmethod
    def of(
        cls,
        base: str,
        text: Path | None = None,
        probes: Path | None = None,
        template: str | None = None,
        *,
        whole: bool = True,
    ) -> Subject:
        """The base by name, folder or hub id; a user's own texts, further probes and template.

        Without `whole` it is not to be run.

        Raises:
            PeftGuardError: as of `own_texts`, `read_probes` and `checked`.
        """
        texts = own_texts(text) if text else neutral_texts()
        source = printable(text.name) if text else SHIPPED
        asked = None if template is None else checked(template)
        return cls(base, texts, source, read_probes(probes), _precision(), asked, whole)

    @property
    def vocabulary(self) -> Vocabulary:
        """The base's whole words."""
        return _vocabulary(self.base_name, self.whole)

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
                `n_classes` and `AdaptedModel`.
            SettingsError: the base cannot be loaded, or is none that a template is for.
        """
        from peftguard.trigger.adapted import AdaptedModel

        count = n_classes(adapter)
        base = _loaded(self.base_name, count or _ANY)
        if base.n_labels is not None and self.template is not None:
            raise SettingsError(
                f"{self.base_name} is a classifier; a template is for causal models"
            )
        if base.n_labels is not None and count is None:
            raise UnsupportedAdapter(
                "brings no classifier head, so its answers cannot be told apart",
                file=adapter.source.target,
            )
        return AdaptedModel(base, adapter, precision=self.precision, device=_device())

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

    def like(self, adapter: Adapter, other: Answering) -> Effects:
        """What texts do to an adapter's answers, asked for as another's are.

        Raises:
            UnsupportedAdapter: as of `adapted`; it has other classes, or its answers are NaN.
        """
        count, expected = n_classes(adapter), len(other.targets)
        if other.asked is None and count != expected:
            raise UnsupportedAdapter(
                "is no adapter to compare with: it answers with other classes",
                file=adapter.source.target,
                expected=f"{expected} classes",
                found=count or "no classifier head",
            )
        effects = self.effects(self.adapted(adapter), other.asked)
        effects.log_odds(self.texts[:1])  # NaN shows here, not at the end of a search
        return effects


def _precision() -> Precision:
    """The fastest; of embeddings alone, where nothing can be run, that of the files."""
    if find_spec("torch") is None:
        return "fp32"
    from peftguard.padbench.training.base import fastest_precision

    return fastest_precision(_device())


def _device() -> str:
    """A GPU if torch finds one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def n_classes(adapter: Adapter) -> int | None:
    """Rows of the narrowest matrix of the classifier head that it brings; None without any.

    Raises:
        UnsupportedAdapter: these are no classes, or more than can be searched.
    """
    heads = [entry.tensor for entry in adapter.payload if entry.kind == "classifier-head"]
    shapes = {name: adapter.container.tensors[name].shape for name in heads}
    rows = {
        name: int(shape[0])
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2
    }
    if not rows:
        return None
    last = min(rows, key=lambda name: rows[name])
    count = rows[last]
    if not 2 <= count <= MAX_CLASSES:
        raise UnsupportedAdapter(
            "a head whose answers cannot be told apart",
            file=adapter.source.target,
            key=last,
            expected=f"2 to {MAX_CLASSES} classes",
            found=count,
        )
    return count


@lru_cache(maxsize=4)
def _loaded(name: str, n_labels: int) -> LoadedBase:
    from peftguard.padbench.training.base import load_base

    return load_base(name, "classification", n_labels)


@lru_cache(maxsize=2)
def _vocabulary(name: str, whole: bool) -> Vocabulary:
    return read_vocabulary(base_folder(name, whole=whole))


def base_folder(name: str, *, whole: bool = True) -> Path:
    """Where a base model's files are: its package, a folder, or the hub's cache.

    Of one on the hub, unless the whole is needed or there already, only what its words need.
    """
    from peftguard.padbench.bases import hub_id_of, packaged, unusable

    hub_id = hub_id_of(name)
    found = packaged(hub_id)
    if found is not None:
        return found
    if Path(name).is_dir():
        return Path(name)
    refuse_file(name)
    from huggingface_hub import snapshot_download

    from peftguard.trigger.hub_base import brought

    try:
        if not whole:
            return _cached(hub_id) or brought(hub_id)
        return Path(snapshot_download(hub_id, allow_patterns=list(_NEEDED)))
    except PeftGuardError:
        raise
    except Exception as error:  # the client raises errors of several libraries
        raise unusable(name, error) from None


def _cached(hub_id: str) -> Path | None:
    """The whole base in the hub's cache, if it is there."""
    try:
        folder = Path(on_this_machine(hub_id))
    except SettingsError:
        return None
    return folder if weight_files(folder) and (folder / "tokenizer.json").exists() else None
