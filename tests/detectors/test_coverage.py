"""Inside or outside: names, shapes, and measured distances."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.toys import BASE, MODULES, WIDTH, toy_row, toy_weights, toy_zoo, write_adapter

from peftguard.adapters.adapter import open_adapter
from peftguard.detectors.coverage import Coverage
from peftguard.detectors.declared import base_among, method_of
from peftguard.detectors.novelty import figures_of, limit_of, sketch_of
from peftguard.errors import SettingsError
from peftguard.features.inner_product import sites_of
from peftguard.features.weights import Factors, Weights


def fitted(n: int = 120) -> Coverage:
    zoo = toy_zoo(n, n // 2)
    return Coverage.fit([e.weights for e in zoo.entries], [e.row for e in zoo.entries])


def one(seed: int = 777, **changes: object) -> Weights:
    return replace(toy_weights(toy_row(0, "benign"), seed), **changes)


@pytest.mark.parametrize(
    ("claim", "base", "same"),
    [
        ("org/Toy-Base", "org/toy-base", True),
        ("/models/toy-base/", "org/toy-base", True),
        ("toy-base", "org/toy-base", True),
        ("C:\\models\\toy-base", "org/toy-base", True),
        ("/hub/models--org--toy-base/snapshots/abc123", "org/toy-base", True),
        ("/hub/models--other--toy-base/snapshots/abc123", "org/toy-base", False),
        ("other/toy-base", "org/toy-base", False),
        ("org/toy-base-v2", "org/toy-base", False),
        ("./toy", "org/toy-base", False),
        ("/", "org/toy-base", False),
        ("", "org/toy-base", False),
    ],
)
def test_base_models_are_compared_by_what_they_name(claim: str, base: str, same: bool) -> None:
    assert (base_among(claim, [base]) == base) is same


def test_the_card_says_what_was_seen() -> None:
    card = fitted().card
    assert (card.bases, card.methods, card.ranks) == ([BASE], ["LORA"], (2, 4))
    assert [module.name for module in card.modules] == list(MODULES)
    assert (card.datasets, card.attacks) == (["film", "news"], ["word"])
    assert card.line == "LORA on org/toy-base, rank 2 to 4, 2 modules of film, news"


def test_fresh_adapters_of_both_kinds_lie_inside() -> None:
    coverage = fitted(800)
    assert coverage.card.level >= 0.99 - 1e-9
    labels = ("benign", "backdoored")
    rows = [toy_row(number, labels[number % 3 == 0]) for number in range(200)]
    fresh = [toy_weights(row, 50_000 + number) for number, row in enumerate(rows)]
    assert sum(coverage.uncovered(adapter) is None for adapter in fresh) >= 190


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"base_model": None}, "does not say what its base model is"),
        ({"base_model": "org/other"}, "its base model is org/other"),
        ({"rank": 64}, "its rank is 64, calibrated on 2 to 4"),
        ({"modules": {"mlp": one().modules[MODULES[0]]}}, "it changes mlp"),
        ({"modules": {MODULES[0]: one().modules[MODULES[0]]}}, "1 of 2 modules"),
    ],
)
def test_what_is_declared_is_compared_first(changes: dict[str, object], why: str) -> None:
    assert why in (fitted().uncovered(one(**changes)) or "")


def test_other_widths_lie_outside() -> None:
    wide = Factors(np.ones((WIDTH + 1, 2), np.float32), np.ones((2, WIDTH), np.float32))
    assert "is (13, 12)" in (fitted().uncovered(one(modules={MODULES[0]: wide})) or "")


def test_other_sizes_and_other_directions_lie_outside() -> None:
    coverage, usual = fitted(), one()
    assert coverage.uncovered(usual) is None
    large = {name: Factors(50 * own.B, own.A) for name, own in usual.modules.items()}
    assert "sizes and spectra" in (coverage.uncovered(replace(usual, modules=large)) or "")
    zero = {name: Factors(0 * own.B, own.A) for name, own in usual.modules.items()}
    assert "sizes and spectra" in (coverage.uncovered(replace(usual, modules=zero)) or "")
    turned = {
        name: Factors(np.roll(own.B, 4, axis=0), np.roll(own.A, 5, axis=1))
        for name, own in usual.modules.items()
    }
    assert "directions" in (coverage.uncovered(replace(usual, modules=turned)) or "")


def test_distances_do_not_depend_on_the_factorisation() -> None:
    usual = one()
    M = np.random.default_rng(3).normal(size=(2, 2))
    other = replace(
        usual,
        modules={
            name: Factors((own.B @ np.linalg.inv(M)).astype("f4"), (M @ own.A).astype("f4"))
            for name, own in usual.modules.items()
        },
    )
    sites = sites_of([usual])
    np.testing.assert_allclose(figures_of(usual, sites), figures_of(other, sites), atol=1e-4)
    np.testing.assert_allclose(sketch_of(usual, sites), sketch_of(other, sites), atol=1e-4)


def test_the_limit_is_exceeded_no_more_often_than_promised() -> None:
    assert limit_of(range(199), 0.005) == (198.0, pytest.approx(0.005))
    assert limit_of([3.0, 1.0], 0.005) == (3.0, pytest.approx(1 / 3))
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(2000):
        drawn = rng.normal(size=100)
        missed += drawn[99] > limit_of(drawn[:99].tolist(), 0.05)[0]
    assert 60 <= missed <= 145


def test_it_comes_back_from_its_card_and_arrays() -> None:
    coverage = fitted()
    again = Coverage.restore(coverage.card, coverage.tensors())
    for adapter in (one(), one(rank=64), one(9)):
        assert again.uncovered(adapter) == coverage.uncovered(adapter)
    wrong = {**coverage.tensors(), "mean": np.zeros(5, np.float32)}
    with pytest.raises(ValueError, match="mean"):
        Coverage.restore(coverage.card, wrong)
    with pytest.raises(ValueError, match="spread"):
        Coverage.restore(coverage.card, {**coverage.tensors(), "spread": -coverage.known.spread})
    beyond = coverage.card.model_copy(update={"module_sets": [[2]]})
    with pytest.raises(ValueError, match="module_sets"):
        Coverage.restore(beyond, coverage.tensors())


def test_headers_decide_before_any_weight_is_read(tmp_path: Path) -> None:
    card = fitted().card
    broken = {
        name: Factors(np.full((WIDTH, 9), np.nan, np.float32), np.ones((9, WIDTH), np.float32))
        for name in MODULES
    }
    folder = write_adapter(tmp_path / "nan", Weights("nan", broken, BASE, "LORA", 9))
    with open_adapter(folder) as adapter:
        assert card.outside(adapter) == "its rank is 9, calibrated on 2 to 4"
    with open_adapter(write_adapter(tmp_path / "fits", one())) as adapter:
        assert card.outside(adapter) is None
    with open_adapter(write_adapter(tmp_path / "vera", one(), peft_type="VERA")) as adapter:
        assert "its method is VERA" in (card.outside(adapter) or "")
        assert method_of(adapter) == "VERA"


def test_headers_name_a_strange_module(tmp_path: Path) -> None:
    strange = one(modules={"model.layers.0.mlp": one().modules[MODULES[0]]})
    with open_adapter(write_adapter(tmp_path / "mlp", strange)) as adapter:
        assert "it changes model.layers.0.mlp" in (fitted().card.outside(adapter) or "")


def test_too_few_nameless_or_mixed_adapters_are_refused() -> None:
    row = toy_row(0, "benign")
    with pytest.raises(SettingsError, match="too few adapters"):
        Coverage.fit([one()], [row])
    rows = [toy_row(number, "benign") for number in range(3)]
    with pytest.raises(SettingsError, match="does not say what its base model is"):
        Coverage.fit([one(1), one(2), one(3, base_model=None)], rows)
    wide = Factors(np.ones((WIDTH + 1, 2), np.float32), np.ones((2, WIDTH), np.float32))
    with pytest.raises(SettingsError, match="one base model at a time"):
        Coverage.fit([one(1), one(2), one(3, modules={MODULES[0]: wide})], rows)
