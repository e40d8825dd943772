"""Kinds and trained detectors by name, by folder, and from other packages."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.toys import toy_zoo

from peftguard.detectors import registry
from peftguard.detectors.base import Estimator
from peftguard.detectors.bundle import save_bundle
from peftguard.detectors.registry import (
    ESTIMATORS,
    detector_names,
    estimator_named,
    estimator_names,
    load_detectors,
)
from peftguard.detectors.training import Options, train
from peftguard.errors import InputError, SettingsError
from peftguard.features.memory import Memory

KIND = """
from peftguard.detectors.spectral import Spectral

class Mine(Spectral):
    name = "mine"

def other():
    return 3
"""


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package with a kind of its own, and something that is none."""
    info = tmp_path / "site" / "kinds-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "kinds_of_others.py").write_text(KIND)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kinds\nVersion: 1.0\n")
    entries = "[peftguard.estimators]\nmine = kinds_of_others:Mine\nwrong = kinds_of_others:other\n"
    (info / "entry_points.txt").write_text(entries)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_kind_can_be_made(name: str) -> None:
    pytest.importorskip(ESTIMATORS[name].partition(":")[0])
    made = estimator_named(name, seed=3, memory=Memory())
    assert isinstance(made, Estimator)
    assert made.name == name
    assert made.get_params().get("seed", 3) == 3


def test_only_seed_and_memory_may_be_lacking() -> None:
    assert "seed" not in estimator_named("spectral", seed=3).get_params()
    with pytest.raises(SettingsError, match=r"no parameter 'c'; known: .*C"):
        estimator_named("spectral", c=3)


def test_an_unknown_kind_gets_a_suggestion() -> None:
    with pytest.raises(SettingsError, match="'spectrol'; did you mean 'spectral'"):
        estimator_named("spectrol")
    with pytest.raises(SettingsError, match="known: anomaly, ensemble, ensemble-trigger, gram"):
        estimator_named("xyz")


@pytest.mark.usefixtures("published")
def test_other_packages_add_kinds() -> None:
    assert {"mine", *ESTIMATORS} <= set(estimator_names())
    assert estimator_named("mine", layer="all").get_params()["layer"] == "all"
    with pytest.raises(SettingsError, match="wrong: expected a subclass of Estimator"):
        estimator_named("wrong")


def ship(folder: Path, name: str, *, decides: bool = False, base: str | None = None) -> None:
    trained = train(toy_zoo(), Options("spectral", decides=decides))
    if base is not None:
        coverage = trained.training.coverage.model_copy(update={"bases": [base]})
        trained.training = trained.training.model_copy(update={"coverage": coverage})
    save_bundle(trained, folder / name)


def test_of_those_that_ship_one_decides_for_each_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_SHIPPED", tmp_path)
    (tmp_path / "README.md").write_text("no detector")
    assert load_detectors() == []
    ship(tmp_path, "one")
    ship(tmp_path, "two")
    assert detector_names() == ["one", "two"]
    assert len(load_detectors()) == 2
    ship(tmp_path, "three", decides=True)
    ship(tmp_path, "four", base="org/other")
    chosen = load_detectors()
    assert len(chosen) == 2
    assert {detector.training.decides for detector in chosen} == {True, False}  # type: ignore[attr-defined]
    (named,) = load_detectors(["one"])
    assert named.card.name == "toy-spectral"


def test_those_that_ship_go_by_the_name_on_their_card() -> None:
    for name in registry._shipped():
        (detector,) = load_detectors([name])
        assert detector.card.name == name


def test_a_folder_is_a_detector_too(tmp_path: Path) -> None:
    ship(tmp_path, "mine")
    (loaded,) = load_detectors([str(tmp_path / "mine")])
    assert loaded.card.name == "toy-spectral"
    (tmp_path / "mine" / "detector.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"mine/detector\.safetensors"):
        load_detectors([str(tmp_path / "mine")])
    with pytest.raises(SettingsError, match="no detector called 'nowhere', nor a folder"):
        load_detectors(["nowhere"])
