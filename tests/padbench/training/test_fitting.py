"""How many adapters fit, what is done when memory runs out, and what a fleet leaves behind."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftguard.errors import SettingsError
from peftguard.padbench.bases import Base
from peftguard.padbench.recipe import Method, Recipe

from .conftest import TARGETS, members, recipe, rows
from .test_fleet import assert_equal

torch = pytest.importorskip("torch")

from peftguard.padbench.training.base import LoadedBase  # noqa: E402
from peftguard.padbench.training.fitting import (  # noqa: E402
    bytes_of_member,
    in_halves,
    members_that_fit,
)
from peftguard.padbench.training.fleet import Fleet, train_fleet  # noqa: E402
from peftguard.padbench.training.memory import bound_caches, release  # noqa: E402
from peftguard.padbench.training.stack import Stack  # noqa: E402
from peftguard.padbench.training.trained import TrainedAdapter  # noqa: E402

TINY = Base(name="bert", hub_id="tiny/bert", family="bert", hidden=32, n_layers=2, ffn=48)
TOO_MUCH = 2**60
"""Bytes that no machine has: the allocator refuses them."""


@given(st.integers(0, 2**40), st.integers(1, 2**34), st.integers(1, 300))
def test_what_fits_is_within_the_free_memory(free: int, each: int, most: int) -> None:
    count = members_that_fit(free, each, most)
    assert 1 <= count <= most
    assert count == 1 or count * each <= 0.8 * free
    assert count == most or (count + 1) * each > 0.8 * free


@pytest.mark.parametrize(
    ("free", "each", "count"), [(80, 10, 6), (80, 100, 1), (0, 1, 1), (10**6, 1, 256)]
)
def test_examples_of_what_fits(free: int, each: int, count: int) -> None:
    assert members_that_fit(free, each) == count


@pytest.mark.parametrize("method", Method)
def test_the_estimate_covers_what_training_keeps(
    method: Method, bases: dict[str, LoadedBase]
) -> None:
    """Against the tensors that autograd holds for the way back, per adapter."""
    own = recipe(method=method, target_modules=TARGETS["bert"], batch_size=8, max_tokens=16)
    kept = [_kept([own] * count, bases["bert"]) for count in (1, 3)]
    each = (kept[1] - kept[0]) / 2
    assert each < bytes_of_member(TINY, own, vocabulary=0, width=4) < 6 * each


def test_the_estimate_grows_with_what_is_computed() -> None:
    def of(vocabulary: int = 0, width: int = 4, **fields: object) -> int:
        return bytes_of_member(TINY, recipe(**fields), vocabulary=vocabulary, width=width)

    assert of(batch_size=16) > of(batch_size=4)
    assert of(rank=8) > of(rank=4)
    assert of(vocabulary=1000) > of()
    assert of(width=2) < of()
    assert of(layers=(1,), batch_size=64) < of(batch_size=64)


def test_halves_go_on_where_memory_runs_out(bases: dict[str, LoadedBase]) -> None:
    """In the middle of a fleet, and with the adapters that a whole one gives."""
    recipes = members("bert", Method.LORA)
    data = {own.name: rows(30, own.seed) for own in recipes}
    sizes: list[int] = []

    def run(those: Sequence[Recipe]) -> list[TrainedAdapter]:
        def hog(done: int, _: int) -> None:
            if done == 2 and len(those) > 1:
                torch.empty(TOO_MUCH, dtype=torch.uint8)

        sizes.append(len(those))
        given_rows = [data[own.name] for own in those]
        return train_fleet(those, given_rows, bases["bert"], progress=hog)

    trained = in_halves(recipes, run)
    assert sizes == [3, 1, 2, 1, 1]
    whole = train_fleet(recipes, [data[own.name] for own in recipes], bases["bert"])
    for one, other in zip(trained, whole, strict=True):
        assert one.recipe == other.recipe
        assert_equal(one, other)


def test_one_adapter_that_does_not_fit_is_named() -> None:
    def run(those: Sequence[Recipe]) -> list[object]:
        return [torch.empty(TOO_MUCH, dtype=torch.uint8)]

    with pytest.raises(SettingsError, match=r"tiny_label1_0: memory runs out .* alone"):
        in_halves([recipe()], run)


def test_other_errors_are_not_taken_for_it() -> None:
    def run(those: Sequence[Recipe]) -> list[object]:
        return [torch.ones(2) @ torch.ones(3)]

    with pytest.raises(RuntimeError, match="size"):
        in_halves([recipe()] * 2, run)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_holes_in_the_heap_are_given_back() -> None:
    blocks = [torch.ones(20_000) for _ in range(2_000)]  # 80 kB each: below what is mapped alone
    last = blocks.pop()
    blocks.clear()
    before = _resident()
    release()
    assert _resident() < before - 80 * 2**20
    assert last.sum() == 20_000


def test_caches_are_bounded_unless_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    bound_caches()
    assert os.environ["LRU_CACHE_CAPACITY"] == "7"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "256"


CHURN = """
import resource, sys
import torch
from peftguard.padbench.training.memory import keep_pages
if sys.argv[1] == "keep":
    keep_pages()
torch.ones(2_000_000).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for size in range(50):
    torch.ones(2_000_000 - 1_000 * size).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_pages_of_freed_tensors_are_used_again() -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    own["MALLOC_MMAP_THRESHOLD_"] = str(128 << 10)  # else glibc adapts it to a single size itself

    def faults(mode: str, environment: dict[str, str]) -> int:
        words = [sys.executable, "-c", CHURN, mode]
        return int(subprocess.run(words, env=environment, capture_output=True, check=True).stdout)

    assert faults("as it is", own) > 10_000
    assert faults("keep", own) > 10_000, "the user has said otherwise"
    del own["MALLOC_MMAP_THRESHOLD_"]
    assert faults("keep", own) < 5_000


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _kept(recipes: Sequence[Recipe], base: LoadedBase) -> int:
    """Bytes of the tensors that one pass keeps, those of the base aside."""
    fleet = Fleet(recipes, base, "cpu", "fp32")
    frozen = {parameter.untyped_storage().data_ptr() for parameter in fleet.model.parameters()}
    first = torch.stack([fleet.initial_row(number) for number in range(len(recipes))])
    stack = Stack(fleet.layout, first, recipes)
    held: dict[int, int] = {}
    alive: list[Any] = []

    def note(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with fleet, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        fleet.give(stack.parts, fleet.scales(range(len(recipes))))
        n_rows = len(recipes) * recipes[0].batch_size
        fleet.outputs([[2] * recipes[0].max_tokens] * n_rows)
    return sum(size for pointer, size in held.items() if pointer not in frozen)
