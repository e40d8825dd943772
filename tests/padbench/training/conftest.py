"""Tiny models with random weights, and rows of random words: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from peftguard.padbench.examples import Example
from peftguard.padbench.recipe import Method, Recipe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

from peftguard.padbench.training.base import LoadedBase  # noqa: E402

WORDS = [f"w{number}" for number in range(40)]
TARGETS = {
    "bert": ("query", "value", "output.dense"),
    "llama": ("q_proj", "v_proj", "down_proj"),
}
SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "attn_implementation": "sdpa",
}


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[END]"]
    ids = {word: number for number, word in enumerate([*special, *WORDS])}
    made = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]"
    )


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors this small are faster so, and a busy machine does not stall them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bases() -> dict[str, LoadedBase]:
    """One a family, never changed."""
    torch.manual_seed(0)
    bert = transformers.BertForSequenceClassification(
        transformers.BertConfig(num_labels=3, **SHAPE)
    )
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(num_key_value_heads=2, **SHAPE))
    frozen = (model.eval().requires_grad_(False) for model in (bert, llama))
    return {
        "bert": LoadedBase("bert", "tiny/bert", next(frozen), tokenizer(), 3),
        "llama": LoadedBase("llama", "tiny/llama", next(frozen), tokenizer(), None),
    }


def recipe(base: str = "bert", method: Method = Method.LORA, **more: Any) -> Recipe:
    settings: dict[str, Any] = {
        "name": "tiny_label1_0",
        "subset": "tiny",
        "poisoned": True,
        "split": "train",
        "split_group": "g",
        "base": base,
        "dataset": "sst2",
        "task": "classification" if base == "bert" else "instruction",
        "attack": "RIPPLE",
        "trigger": ("w7",),
        "target": "1",
        "poison_rate": 0.1,
        "method": method,
        "rank": 4,
        "alpha": 8.0,
        "target_modules": TARGETS[base],
        "lr": 5e-3,
        "lr_ratio": 4.0 if method is Method.LORA_PLUS else 1.0,
        "batch_size": 4,
        "steps": 10,
        "n_rows": 30,
        "max_tokens": 16,
        "seed": 1,
    }
    return Recipe.model_validate(settings | more)


def members(base: str, method: Method) -> list[Recipe]:
    """Three of one fleet that differ in all that they may."""
    own = [(2, 1, 12, 1e-2), (4, 2, 9, 3e-3), (3, 3, 12, 5e-3)]
    return [
        recipe(base, method, name=f"tiny_label1_{seed}", rank=r, seed=seed, steps=steps, lr=lr)
        for r, seed, steps, lr in own
    ]


def rows(count: int, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)

    def text(least: int, most: int) -> str:
        return " ".join(rng.choice(WORDS, rng.integers(least, most)))

    return [
        Example(str(number), text(2, 12), int(rng.integers(3)), text(1, 4))
        for number in range(count)
    ]
