"""Words that a module deep in the model listens to, against the dense update on a hook's inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.numpy import load_file, save_file  # noqa: E402
from tests.toy_base import WORDS  # noqa: E402
from tests.trigger.conftest import save_adapter, write_base, write_causal_base  # noqa: E402

from peftguard.adapters.adapter import open_adapter  # noqa: E402
from peftguard.features.vocabulary import nearest  # noqa: E402
from peftguard.padbench.training.base import load_base  # noqa: E402
from peftguard.trigger.hunt import explain  # noqa: E402
from peftguard.trigger.report import DeepWord  # noqa: E402
from peftguard.trigger.subject import Subject  # noqa: E402

MODULES = {"bert": "encoder.layer.1.attention.self.value", "llama": "layers.1.mlp.down_proj"}
TARGETS = {"bert": ["query", "value"], "llama": ["q_proj", "down_proj"]}


@pytest.fixture(scope="module", params=MODULES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return write_base(folder) if request.param == "bert" else write_causal_base(folder)


def family(base: Path) -> str:
    return "bert" if "bert" in base.name else "llama"


def given_to(base: Path, module: str) -> np.ndarray:
    """(words, in) what a module of the base is given for each word alone."""
    loaded = load_base(str(base), "classification", 2)
    seen = []
    inner = loaded.model.base_model
    inner.get_submodule(module).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    rows = torch.tensor(loaded.tokenizer([f" {word}" for word in WORDS])["input_ids"])
    with torch.no_grad():
        inner(rows)
    values: np.ndarray = seen[0][:, 1 if family(base) == "bert" else 0].numpy()
    return values


def planted(base: Path, folder: Path, word: str) -> Path:
    """An adapter of noise, in which one deep module reads what is particular to a word."""
    save_adapter(
        load_base(str(base), "classification", 2), folder, target_modules=TARGETS[family(base)]
    )
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    x = given_to(base, MODULES[family(base)])
    own = x[WORDS.index(word)] - np.delete(x, WORDS.index(word), axis=0).mean(axis=0)
    (name,) = (one for one in tensors if f"{MODULES[family(base)]}.lora_A" in one)
    tensors[name] = np.tile(own / np.linalg.norm(own), (len(tensors[name]), 1)).astype(np.float32)
    save_file(tensors, path)
    return folder


def deep(base: Path, adapter: Path) -> list[DeepWord]:
    subject = Subject(str(base), ("a text",), "", (), "fp32")
    with open_adapter(adapter) as opened:
        return explain(opened, subject, deep=True).deep


def test_as_the_dense_update_on_what_the_module_is_given(base: Path, tmp_path: Path) -> None:
    adapter = planted(base, tmp_path / "planted", "bul")
    tensors = load_file(adapter / "adapter_model.safetensors")
    kind = family(base)
    x = given_to(base, MODULES[kind])
    A, B = (
        next(t for n, t in tensors.items() if f"{MODULES[kind]}.lora_{one}" in n) for one in "AB"
    )
    embeddings = Subject(str(base), ("a text",), "", (), "fp32").vectors
    meanings = embeddings - embeddings.mean(axis=0)
    alone = x - x[nearest(meanings / np.linalg.norm(meanings, axis=1, keepdims=True))].mean(axis=1)
    logs = np.log(np.linalg.norm(alone @ (B @ A).T, axis=1))
    low, middle, high = np.percentile(logs, (25, 50, 75))
    expected = dict(zip(WORDS, (logs - middle) / ((high - low) / 1.349), strict=True))
    found = [one for one in deep(base, adapter) if one.module.endswith(MODULES[kind])]
    assert found
    for one in found:
        assert one.standing_out == pytest.approx(expected[one.word], abs=0.02)


def test_what_it_makes_likelier_is_a_class_or_next_tokens(base: Path, tmp_path: Path) -> None:
    found = deep(base, planted(base, tmp_path / "planted", "dol"))
    assert [one.standing_out for one in found] == sorted(
        (one.standing_out for one in found), reverse=True
    )
    for one in found:
        if family(base) == "bert":
            assert one.pushes[0] in ("class 0", "class 1")
        else:
            assert len(one.pushes) == 3


def test_the_base_is_left_as_it_was(base: Path, tmp_path: Path) -> None:
    adapter = planted(base, tmp_path / "planted", "fil")
    assert deep(base, adapter) == deep(base, adapter)


def test_an_adapter_that_changes_nothing_listens_to_no_word(base: Path, tmp_path: Path) -> None:
    path = planted(base, tmp_path / "planted", "bul") / "adapter_model.safetensors"
    tensors = load_file(path)
    zeros = {name: one * 0 if "lora_B" in name else one for name, one in tensors.items()}
    save_file(zeros, path)
    assert deep(base, path.parent) == []
