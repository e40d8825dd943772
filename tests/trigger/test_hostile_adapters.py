"""Adapters whose head, magnitudes or numbers do not fit: one clear error, and nothing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.trigger.conftest import make_base, save_adapter, write_base

from peftguard.adapters.adapter import open_adapter
from peftguard.errors import MalformedFile, PeftGuardError, UnsupportedAdapter
from peftguard.padbench.training.base import LoadedBase, load_base
from peftguard.trigger.adapted import AdaptedModel
from peftguard.trigger.subject import MAX_CLASSES, Subject, n_classes

HEAD = "base_model.model.classifier"
QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"
MAGNITUDE = f"{QUERY}.lora_magnitude_vector"
Arrays = dict[str, np.ndarray | None]


@pytest.fixture(scope="module")
def base() -> LoadedBase:
    return make_base("bert")


@pytest.fixture
def write(base: LoadedBase, tmp_path: Path) -> Any:
    """An adapter of that base, of three classes; then with other tensors, None for none."""

    def changed(changes: Arrays, **settings: Any) -> Path:
        save_adapter(base, tmp_path, **settings)
        path = tmp_path / "adapter_model.safetensors"
        tensors = {**load_file(path), **changes}
        save_file({name: one for name, one in tensors.items() if one is not None}, path)
        return tmp_path

    return changed


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({f"{HEAD}.weight": zeros(3, 20)}, "classifier: a head that does not fit"),
        ({f"{HEAD}.weight": zeros(4, 32), f"{HEAD}.bias": zeros(4)}, "a head that does not fit"),
        ({f"{HEAD}.bias": zeros(5)}, "a head that does not fit"),
        ({f"{HEAD}.bias": zeros(3, 1)}, "a head that does not fit"),
        ({f"{HEAD}.weight": zeros(3, 32) * np.nan}, "a head with NaN or infinite weights"),
        ({f"{HEAD}.bias": zeros(3) + np.inf}, "a head with NaN or infinite weights"),
        ({f"{HEAD}.weight": None}, "not a linear head"),
    ],
)
def test_a_head_that_is_none(base: LoadedBase, write: Any, changes: Arrays, said: str) -> None:
    with open_adapter(write(changes)) as adapter, pytest.raises(MalformedFile, match=said):
        AdaptedModel(base, adapter)


@pytest.mark.parametrize("norms", [zeros(5), zeros(32) * np.nan, zeros()])
def test_magnitudes_that_do_not_fit(base: LoadedBase, write: Any, norms: np.ndarray) -> None:
    folder = write({MAGNITUDE: norms}, use_dora=True)
    with open_adapter(folder) as adapter, pytest.raises(MalformedFile, match="expected 32 finite"):
        AdaptedModel(base, adapter)


def test_numbers_that_overflow_are_no_answers(base: LoadedBase, write: Any) -> None:
    large = np.full((4, 32), 1e30, np.float32)
    factors = {f"{QUERY}.lora_A.weight": large, f"{QUERY}.lora_B.weight": large.T.copy()}
    with open_adapter(write(factors)) as adapter:
        model = AdaptedModel(base, adapter)
    assert np.isfinite(model.logits([[2, 7, 3]], adapted=False)).all()
    with pytest.raises(UnsupportedAdapter, match="NaN or infinite"):
        model.logits([[2, 7, 3]])


@pytest.mark.parametrize("count", [0, 1, MAX_CLASSES + 1])
def test_a_head_of_no_classes_or_of_too_many(write: Any, count: int) -> None:
    with (
        open_adapter(write({f"{HEAD}.weight": zeros(count, 32)})) as adapter,
        pytest.raises(UnsupportedAdapter, match=f"expected 2 to 200 classes; found {count}$"),
    ):
        n_classes(adapter)


def test_the_narrowest_matrix_of_a_head_has_the_classes(write: Any) -> None:
    with open_adapter(write({f"{HEAD}.dense.weight": zeros(32, 32)})) as adapter:
        assert n_classes(adapter) == 3
    for shape in ((), (3,), (3, 32, 1)):
        with open_adapter(write({f"{HEAD}.weight": zeros(*shape)})) as adapter:
            assert n_classes(adapter) is None


def test_a_template_is_of_no_use_to_a_classifier(tmp_path: Path) -> None:
    name = str(write_base(tmp_path / "base"))
    save_adapter(load_base(name, "classification", 2), tmp_path / "adapter")
    subject = Subject.of(name, template="Say {text}")
    with (
        open_adapter(tmp_path / "adapter") as adapter,
        pytest.raises(PeftGuardError, match="is a classifier; a template is for causal"),
    ):
        subject.adapted(adapter)
