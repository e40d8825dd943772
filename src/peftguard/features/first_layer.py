"""What the first attention layer of a base model is given for a token, read from its files.

Between the embedding and the first attention stand at most a few sums and norms, and every
architecture has its own: BERT adds a position and a segment and normalises; Llama normalises by
length; BLOOM normalises twice. They are written down here as a table, so that nothing has to run.
Where positions are learnt their mean stands for all of them. Rotary and relative positions come
later, inside the attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftguard.adapters.containers.base import Container
from peftguard.adapters.jsonfile import load_json
from peftguard.errors import MalformedFile, UnsupportedAdapter
from peftguard.limits import Limits

Float32 = NDArray[np.float32]

_WRAPPERS = (
    "bert.",
    "roberta.",
    "distilbert.",
    "electra.",
    "gpt_neox.",
    "transformer.",
    "language_model.",
    "model.",
    "language_model.",
)
"""Under which names models are stored, from outside in."""
_EPSILONS = ("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps")
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors that make a token's vector, in the order in which they are applied.

    Args:
        kind: whose it is.
        table: of embeddings.
        norms: modules that normalise: by mean and spread if they have a bias, by length if not.
        positions: learnt ones.
        segments: of which the first is added.
        maybe: those of them that some models of the kind do without.
        refused: a tensor of models of the kind that put something else between.
    """

    kind: str
    table: str
    norms: tuple[str, ...]
    positions: str | None = None
    segments: str | None = None
    maybe: frozenset[str] = field(default_factory=frozenset)
    refused: str | None = None


LAYOUTS = (
    Layout(
        "BERT, RoBERTa, DistilBERT",
        "embeddings.word_embeddings",
        ("embeddings.LayerNorm",),
        "embeddings.position_embeddings",
        "embeddings.token_type_embeddings",
        frozenset({"embeddings.token_type_embeddings"}),
        refused="embeddings_project",
    ),
    Layout(
        "Llama, Mistral, Qwen, Gemma, Phi, SmolLM", "embed_tokens", ("layers.0.input_layernorm",)
    ),
    Layout("GPT-2, GPT-J", "wte", ("h.0.ln_1",), "wpe", maybe=frozenset({"wpe"})),
    Layout(
        "OPT",
        "decoder.embed_tokens",
        ("decoder.layers.0.self_attn_layer_norm",),
        "decoder.embed_positions",
        refused="decoder.project_in",
    ),
    Layout("BLOOM", "word_embeddings", ("word_embeddings_layernorm", "h.0.input_layernorm")),
    Layout("Falcon", "word_embeddings", ("h.0.input_layernorm",)),
    Layout("Pythia, GPT-NeoX", "embed_in", ("layers.0.input_layernorm",)),
    Layout("T5", "shared", ("encoder.block.0.layer.0.layer_norm",)),
    Layout(
        "GGUF",
        "token_embd",
        ("token_embd_norm", "blk.0.attn_norm"),
        "position_embd",
        "token_types",
        frozenset({"token_embd_norm", "blk.0.attn_norm", "position_embd", "token_types"}),
    ),
)


def is_needed(tensor: str) -> bool:
    """Whether a tensor, by its name in a checkpoint, is one that any kind of model is read by."""
    name = _bare(tensor).rpartition(".")[0]
    return any(name in _parts(layout) for layout in LAYOUTS)


@dataclass(frozen=True, eq=False)
class Embedded:
    """Tokens as the base embeds them.

    Args:
        plain: (n, h) rows of the embedding.
        shaped: (n, h) what the first attention layer is given for them.
    """

    plain: Float32
    shaped: Float32


def embedded(container: Container, places: Sequence[int], folder: Path) -> Embedded:
    """Tokens by their places in the embedding.

    Raises:
        MalformedFile: a tensor is missing, or the places do not fit the embedding.
        UnsupportedAdapter: a model of no kind that is known here.
    """
    return _Reader(container, *_settings(container, folder)).read(places, folder)


def _settings(container: Container, folder: Path) -> tuple[float, float]:
    """Epsilon of the norms, and what is added to the weight of those by length."""
    path = folder / "config.json"
    if container.format == "gguf" or not path.is_file():
        return _EPSILON, 0.0
    config = load_json(path, file=path.name, limits=Limits())
    text = config.get("text_config")
    own: Mapping[str, Any] = text if isinstance(text, dict) else config
    given = (own[name] for name in _EPSILONS if isinstance(own.get(name), (int, float)))
    # Gemma stores the weight of a norm less one.
    less_one = "gemma" in str(own.get("model_type", config.get("model_type")))
    return abs(float(next(given, _EPSILON))), float(less_one)


@dataclass(frozen=True, slots=True, eq=False)
class _Reader:
    container: Container
    epsilon: float
    added: float

    def read(self, places: Sequence[int], folder: Path) -> Embedded:
        named = {_bare(name): name for name in self.container.tensors}
        layout = self._layout(named, folder)
        plain = self._rows(named[f"{layout.table}.weight"], places)
        rows = plain
        for name, share in self._sums(layout, named):
            rows = rows + (share[0] if name == layout.segments else share.mean(axis=0))
        for norm in layout.norms:
            if f"{norm}.weight" in named:
                rows = self._normalised(rows, norm, named)
        return Embedded(plain, rows)

    def _layout(self, named: Mapping[str, str], folder: Path) -> Layout:
        """By the tensors there are; where a kind's embedding is but no norm, it is broken."""
        there = {name.removesuffix(".weight") for name in named}
        likely = [layout for layout in LAYOUTS if layout.table in there]
        lacking = {layout.kind: _lacking(layout, there) for layout in likely}
        for layout in likely:
            if not lacking[layout.kind] and layout.refused not in there:
                return layout
        if likely and all(lacking.values()):
            key = f"{min(lacking.values(), key=len)[0]}.weight"
            raise MalformedFile("a tensor is missing", file=self._file, key=key)
        kinds = "; ".join(layout.kind for layout in LAYOUTS)
        raise UnsupportedAdapter(
            "no kind of base model that is known here", file=str(folder), expected=kinds
        )

    def _sums(self, layout: Layout, named: Mapping[str, str]) -> Iterator[tuple[str, Float32]]:
        for name in (layout.positions, layout.segments):
            if name is not None and f"{name}.weight" in named:
                yield name, self._tensor(named[f"{name}.weight"])

    def _normalised(self, rows: Float32, norm: str, named: Mapping[str, str]) -> Float32:
        weight, bias = self._tensor(named[f"{norm}.weight"]), named.get(f"{norm}.bias")
        if bias is None:
            lengths: Float32 = np.sqrt(np.mean(rows**2, axis=1, keepdims=True) + self.epsilon)
            return rows / lengths * (weight + self.added)
        rows = rows - rows.mean(axis=1, keepdims=True)
        spread: Float32 = np.sqrt(rows.var(axis=1, keepdims=True) + self.epsilon)
        return rows / spread * weight + self._tensor(bias)

    def _rows(self, name: str, places: Sequence[int]) -> Float32:
        table = self.container.read(name)
        if max(places) >= len(table) or min(places) < 0:
            raise MalformedFile(
                "the tokenizer and the embedding do not fit",
                file=self._file,
                expected=f"words from 0 up to {max(places)}",
                found=f"{len(table)} embeddings",
            )
        return table[list(places)].astype(np.float32)

    def _tensor(self, name: str) -> Float32:
        return self.container.read(name).astype(np.float32)

    @property
    def _file(self) -> str:
        return self.container.path.name


def _parts(layout: Layout) -> list[str]:
    """All tensors that it is read by, without `.weight` and `.bias`."""
    parts = (layout.table, layout.positions, layout.segments, *layout.norms)
    return [name for name in parts if name is not None]


def _lacking(layout: Layout, there: Set[str]) -> list[str]:
    """What a model lacks that every one of the kind has: at least one norm among it."""
    needed = [name for name in _parts(layout) if name not in layout.maybe]
    norms = [] if there & set(layout.norms) else list(layout.norms)
    return [name for name in dict.fromkeys((*needed, *norms)) if name not in there]


def _bare(name: str) -> str:
    """A tensor's name without the model's own (`bert.`, `model.`)."""
    for prefix in _WRAPPERS:
        name = name.removeprefix(prefix)
    return name
