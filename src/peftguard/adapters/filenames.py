"""What a file's name says: adapter weights, a whole model's weights, training state, or neither.

Names decide only what is looked for in a folder. A file that the user names is read whatever it is
called, and what a file holds is decided by its bytes. Letter case does not matter: on many disks it
does not either.
"""

from __future__ import annotations

import re

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
"""As peft writes them."""

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz")
"""Weight files, best first: loaders take safetensors where both lie in one folder."""

_SHARD = re.compile(
    r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<suffix>\.\w+)", re.ASCII | re.IGNORECASE
)
_MAIN = re.compile(r"(?:adapter_model|adapters)(?:-\d{5}-of-\d{5})?\.\w+", re.ASCII | re.IGNORECASE)
_INDEX = re.compile(r"adapter_model\.\w+\.index\.json", re.ASCII | re.IGNORECASE)
_STEP = re.compile(r"\d+_adapters\.(?:safetensors|npz)", re.ASCII | re.IGNORECASE)
_ADAPTER_LIKE = re.compile(r"lora|adapter|dora|loha|lokr|locon|lycoris", re.IGNORECASE)
_WHOLE_MODEL = re.compile(
    r"(?:(?:pytorch_|diffusion_pytorch_|tf_|flax_)?model|consolidated)"
    r"(?:\.(?:fp16|fp32|bf16|non_ema|ema|\d\d))?(?:-\d{5}-of-\d{5})?\.\w+",
    re.ASCII | re.IGNORECASE,
)
_TRAINING_STATE = re.compile(
    r"(?:optimizer|scheduler|scaler|training_args|rng_state\w*|random_states\w*|\w*optim_states)"
    r"\.(?:bin|pt|pth|pkl)",
    re.ASCII | re.IGNORECASE,
)
_CODE = (
    ".py", ".pyc", ".pyd", ".sh", ".bat", ".ps1", ".so", ".dll", ".dylib", ".exe", ".jar", ".whl",
    ".egg", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".ipynb",
    ".pkl", ".pickle", ".joblib", ".dill", ".npy",
)  # fmt: skip
_TOKENIZER = frozenset(
    {
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "spiece.model",
        "sentencepiece.bpe.model",
    }
)
_TEMPLATES = frozenset({"chat_template.jinja", "chat_template.json"})
_LIBRARY = re.compile(r".+\.so(?:\.\d+)+", re.ASCII | re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"([0-9]+)")


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort key that puts `checkpoint-9` before `checkpoint-10`."""
    pieces = _NUMBER.split(name)
    numbered = [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)]
    return numbered, name


def is_weights(name: str) -> bool:
    """True for any file of tensors that is not mere training state."""
    return name.lower().endswith(SUFFIXES) and not is_training_state(name)


def is_main(name: str) -> bool:
    """True for the weights that belong to the folder's `adapter_config.json` (peft, MLX-LM)."""
    return is_weights(name) and _MAIN.fullmatch(name) is not None


def announces_adapter(name: str) -> bool:
    """True for a file that says its folder is an adapter: config, weights, index of shards."""
    return name == CONFIG or is_main(name) or _INDEX.fullmatch(name) is not None


def is_step(name: str) -> bool:
    """True for MLX-LM's numbered checkpoints, which share the folder's config."""
    return _STEP.fullmatch(name) is not None


def is_called_adapter(name: str) -> bool:
    """True if a weight file's name calls it an adapter."""
    return is_weights(name) and _ADAPTER_LIKE.search(name) is not None


def may_be_adapter(name: str) -> bool:
    """True for what may be an adapter in one file: safetensors, GGUF, and pickles by their name."""
    if is_whole_model(name):
        return False
    return name.lower().endswith((".safetensors", ".gguf")) or is_called_adapter(name)


def is_whole_model(name: str) -> bool:
    """True for the file names under which libraries save the weights of a whole model."""
    return is_weights(name) and _WHOLE_MODEL.fullmatch(name) is not None


def is_training_state(name: str) -> bool:
    """True for optimizers, schedulers and random states that trainers leave behind."""
    return _TRAINING_STATE.fullmatch(name) is not None


def is_code(name: str) -> bool:
    """True for programs, libraries, and what may hold them: archives, pickles of any object."""
    if is_training_state(name):
        return False
    return name.lower().endswith(_CODE) or _LIBRARY.fullmatch(name) is not None


def is_tokenizer(name: str) -> bool:
    """True for the files that make up a tokenizer."""
    return name.lower() in _TOKENIZER


def is_chat_template(name: str) -> bool:
    """True for a chat template in a file of its own."""
    return name.lower() in _TEMPLATES or name.lower().endswith((".jinja", ".jinja2"))


def shard_of(name: str) -> tuple[str, int, int] | None:
    """(name without its number, number, total) of a shard such as `m-00001-of-00002.bin`."""
    match = _SHARD.fullmatch(name)
    if match is None:
        return None
    return match["stem"] + match["suffix"], int(match["number"]), int(match["total"])


def preference(name: str) -> tuple[bool, int, bool, tuple[list[str | int], str]]:
    """Sort key: the file that a loader would take first, in its own letters; shards last."""
    is_respelt = is_main(name) and name != name.lower()
    suffix = next((i for i, s in enumerate(SUFFIXES) if name.lower().endswith(s)), len(SUFFIXES))
    return is_respelt, suffix, shard_of(name) is not None, natural(name)


def printable(text: str) -> str:
    """A stranger chose this name: no control characters, nothing that cannot be encoded."""
    return "".join(character if character.isprintable() else "?" for character in text)
