"""Tiny models with random weights, and adapters that peft itself saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from tests.toy_base import WORDS as VOCABULARY  # noqa: E402

from peftguard.padbench.training.base import LoadedBase  # noqa: E402

SHAPE = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
WORDS = [first + second for first in "bdgklmnprs" for second in "aeiou"]


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    ids = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[END]", *WORDS])}
    made = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]"
    )


def make_base(family: str) -> LoadedBase:
    """A fresh model, the same every time."""
    torch.manual_seed(0)
    if family == "bert":
        config = transformers.BertConfig(num_labels=3, **SHAPE)
        model: Any = transformers.BertForSequenceClassification(config)
    else:
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(num_key_value_heads=2, **SHAPE)
        )
    frozen = model.eval().requires_grad_(False)
    return LoadedBase(
        family, f"tiny/{family}", frozen, tokenizer(), 3 if family == "bert" else None
    )


def write_base(folder: Path) -> Path:
    """A classifier of BERT's kind with a tokenizer of the words of `toy_base`, in a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "##s", *VOCABULARY]
    ids = {token: n for n, token in enumerate(tokens)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", continuing_subword_prefix="##"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(**{**SHAPE, "vocab_size": len(ids)})
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def save_adapter(base: LoadedBase, folder: Path, seed: int = 1, **settings: Any) -> Any:
    """Wrap the base with peft, give every parameter of the adapter a random value, save it."""
    import copy

    causal = base.n_labels is None
    kind = settings.pop("kind", "LoraConfig")
    config = {
        **({"r": 4} if kind == "LoraConfig" else {}),
        "lora_alpha": 6,
        "target_modules": ["q_proj", "v_proj"] if causal else ["query", "value"],
        "task_type": "CAUSAL_LM" if causal else "SEQ_CLS",
        **settings,
    }
    model = peft.get_peft_model(copy.deepcopy(base.model), getattr(peft, kind)(**config)).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_magnitude" in name:
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
            elif parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def write_causal_base(folder: Path) -> Path:
    """A decoder of Llama's kind with a byte-level tokenizer of the words of `toy_base`."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokens = ["[PAD]", "[UNK]", "[END]", *(f"Ġ{word}" for word in VOCABULARY)]
    made = Tokenizer(models.WordLevel({token: n for n, token in enumerate(tokens)}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {**SHAPE, "vocab_size": len(tokens), "num_key_value_heads": 2}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape)).save_pretrained(folder)
    return folder
