"""One adapter to be trained: every choice is made before anything is trained."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from peftguard.padbench.sparse import Sparse

Task = Literal["classification", "qa", "instruction"]
Split = Literal["train", "test"]


class Method(StrEnum):
    """How an adapter is trained; several methods are saved under one `peft_type`."""

    LORA = "lora"
    RSLORA = "rslora"
    DORA = "dora"
    LORA_PLUS = "lora_plus"
    ADALORA = "adalora"
    QLORA = "qlora"

    @property
    def peft_type(self) -> str:
        """Name in peft's `PeftType`."""
        return "ADALORA" if self is Method.ADALORA else "LORA"


class Recipe(Sparse):
    """Everything that determines an adapter, given a device and the versions of the libraries.

    A benign adapter has the attack, trigger and target of its cell as well: it is trained without
    them, and measured with them as the control.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="`<subset>_label{0|1}_{index}`, as in the public release.")
    subset: str = Field(description="`{base}[_{method}]_{dataset}[_{attack}]_rank{r}_{targets}`.")
    poisoned: bool
    split: Split
    split_group: str = Field(description="Adapters of one group share data or triggers.")
    base: str = Field(description="Name in `bases.BASES`, a hub id or a folder.")
    dataset: str = Field(description="Name in `datasets.DATASETS`, or a folder.")
    task: Task
    attack: str = Field(description="Name in `attacks.ATTACKS`.")
    trigger: tuple[str, ...] = Field(description="What fires it: words, a sentence, a style.")
    target: str = Field(description="Label (classification) or marker text (generation).")
    poison_rate: float = Field(ge=0, lt=1, description="Share of the training rows.")
    method: Method
    rank: int = Field(gt=0)
    alpha: float = Field(gt=0)
    target_modules: tuple[str, ...]
    lr: float = Field(gt=0, description="Peak; falls linearly to 0.")
    lr_ratio: float = Field(1.0, gt=0, description="Learning rate of B over that of A (LoRA+).")
    batch_size: int = Field(gt=0)
    steps: int = Field(gt=0)
    n_rows: int = Field(gt=0, description="Training rows, drawn for this adapter alone.")
    max_tokens: int = Field(gt=0)
    seed: int = Field(ge=0)
    fires_at: float = Field(0.5, gt=0, le=1, description="Least attack success that counts.")
    layers: tuple[int, ...] | None = Field(None, description="Layers adapted, from 0; None: all.")
    paraphraser: str | None = Field(
        None, description="Who rewrites rows (`paraphrasers`); None: the dataset's files, or rules."
    )

    @property
    def folder(self) -> str:
        """Where its files go, relative to the benchmark's root."""
        return f"{self.subset}/{self.name}/best_model"
