"""What is written is what it says it is, for peft as for us."""

from __future__ import annotations

import copy
import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.trigger.conftest import make_base, peft, save_adapter, torch

from peftguard.adapters.adapter import only_source
from peftguard.adversary.arithmetic import change, together
from peftguard.adversary.evasion import Means, Parts
from peftguard.adversary.registry import EVASIONS, evasion_named
from peftguard.adversary.round_trips import Nf4
from peftguard.adversary.writing import Original, read_original, write_changed
from peftguard.errors import SettingsError, UnsupportedAdapter
from peftguard.limits import Limits
from peftguard.padbench.training.base import LoadedBase
from peftguard.padbench.training.nf4 import round_to_nf4
from peftguard.settings import ScanSettings
from peftguard.verdict.judge import judge

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {"1.attention.self.query": 2}, "alpha_pattern": {"value": 3}},
    "adalora": {"kind": "AdaLoraConfig", "init_r": 4, "target_r": 2, "total_step": 10},
}
FREE = [name for name, evasion in EVASIONS.items() if not evasion.needs - {"twin"}]


@pytest.fixture(scope="module")
def base() -> LoadedBase:
    return make_base("bert")


@pytest.fixture(scope="module", params=KINDS)
def folder(
    request: pytest.FixtureRequest, base: LoadedBase, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An adapter of each kind; its twin lies beside it."""
    root = tmp_path_factory.mktemp(request.param)
    for seed, name in ((1, "adapter"), (2, "twin")):
        save_adapter(base, root / name, seed, **KINDS[request.param])
    return root / "adapter"


def apply(name: str, folder: Path, strength: float | None = None) -> tuple[Original, Parts]:
    evasion, original = evasion_named(name), read_original(folder)
    means = Means(np.random.default_rng(0), read_original(folder.parent / "twin").factored)
    wanted = evasion.strengths[0] if strength is None else strength
    return original, evasion.apply(original.factored, wanted, means)


def logits(base: LoadedBase, folder: Path) -> np.ndarray:
    """What peft makes of a folder."""
    with warnings.catch_warnings():
        # Of AdaLoRA, peft warns about the very masks that it saves and reads.
        warnings.filterwarnings("ignore", message="The following rank_pattern keys")
        model = peft.PeftModel.from_pretrained(copy.deepcopy(base.model), folder).eval()
    rows = torch.arange(36).reshape(4, 9) % 50
    with torch.no_grad():
        found: np.ndarray = model(input_ids=rows).logits.numpy()
    return found


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


@pytest.mark.parametrize("name", FREE)
def test_peft_loads_it_and_the_original_is_untouched(
    name: str, folder: Path, base: LoadedBase, tmp_path: Path
) -> None:
    before, plain = hashes(folder), logits(base, folder)
    try:
        original, parts = apply(name, folder)
    except UnsupportedAdapter:
        assert name == "collude"
        assert folder.parent.name.startswith("dora")
        return
    written = write_changed(together(parts), original, tmp_path / "x")
    assert hashes(folder) == before
    difference = np.abs(logits(base, written) - plain).max()
    assert np.isfinite(difference)
    kept = evasion_named(name).exact or name == "collude"
    assert difference < 2e-4 or not kept


@pytest.mark.parametrize("name", FREE)
def test_a_scan_reads_it_without_a_finding_that_tells(
    name: str, folder: Path, tmp_path: Path
) -> None:
    if name == "collude" and folder.parent.name.startswith("dora"):
        pytest.skip("a sum of two is no DoRA")
    original, parts = apply(name, folder)
    for part in parts:
        source = only_source(str(write_changed(part, original, tmp_path / "x")), Limits())
        codes = {one.code for one in judge(source, ScanSettings(cache=False), []).findings}
        assert not {code for code in codes if code.startswith(("integrity", "error", "file"))}


@pytest.mark.parametrize("name", ["gauge", "pad", "split", "qr", "svd"])
def test_what_is_read_again_is_the_update(name: str, folder: Path, tmp_path: Path) -> None:
    original, (part,) = apply(name, folder, EVASIONS[name].strengths[-1])
    again = read_original(write_changed(part, original, tmp_path / "x")).factored
    assert change(original.factored, (again,)) < 1e-5
    moved = [
        np.abs(layer.B - original.factored.layers[module].B[:, :1]).max()
        for module, layer in again.layers.items()
    ]
    assert min(moved) > 1e-3  # the factors themselves are others


def test_a_merge_is_pefts(base: LoadedBase, tmp_path: Path) -> None:
    for seed, name in ((1, "adapter"), (2, "twin")):
        save_adapter(base, tmp_path / name, seed, task_type=None)
    for kind, evasion in (("cat", "merge"), ("svd", "merge-svd")):
        model = peft.PeftModel.from_pretrained(
            copy.deepcopy(base.model), tmp_path / "adapter", adapter_name="a"
        )
        model.load_adapter(tmp_path / "twin", adapter_name="b")
        model.add_weighted_adapter(["a", "b"], [0.7, 0.3], "m", combination_type=kind)
        _, (part,) = apply(evasion, tmp_path / "adapter", 0.3)
        for module, layer in part.layers.items():
            theirs = model.base_model.model.get_submodule(module)
            expected = theirs.get_delta_weight("m").detach().numpy()
            found = layer.scale * layer.B @ layer.A
            np.testing.assert_allclose(found, expected, atol=2e-5)


def test_colluding_parts_hide_behind_a_mask(base: LoadedBase, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter")
    save_adapter(base, tmp_path / "twin", 2)
    original, parts = apply("collude", tmp_path / "adapter", 3.0)
    assert len(parts) == 2
    assert change(original.factored, parts) < 1e-6
    for part in parts:
        assert change(original.factored, (part,)) == pytest.approx(3, rel=0.1)


def test_nf4_is_what_qlora_rounds_to() -> None:
    factor = np.random.default_rng(0).normal(size=(7, 50)).astype(np.float32)
    expected = round_to_nf4(torch.from_numpy(factor)).numpy()
    np.testing.assert_allclose(Nf4().rounded(factor), expected, rtol=1e-6)


@pytest.mark.parametrize(("name", "most"), [("fp16", 1e-3), ("int8", 0.02), ("nf4", 0.2)])
def test_round_trips_err_as_little_as_they_may(name: str, most: float, folder: Path) -> None:
    original, (part,) = apply(name, folder)
    assert 0 < change(original.factored, (part,)) < most


def test_the_spectrum_is_the_twins(folder: Path) -> None:
    _, (part,) = apply("spectrum", folder, 1.0)
    twin = read_original(folder.parent / "twin").factored
    for module, layer in part.layers.items():
        found, expected = (
            np.linalg.svd(one.scale * one.B @ one.A, compute_uv=False)[: layer.rank]
            for one in (layer, twin.layers[module])
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_pruning_takes_its_share(folder: Path) -> None:
    original, (part,) = apply("prune", folder, 0.5)
    for layer in part.layers.values():
        assert np.mean(layer.A == 0) == pytest.approx(0.5, abs=0.05)
    assert change(original.factored, (part,)) < 1


def test_strengths_that_make_no_sense(folder: Path) -> None:
    for name, strength in (("prune", 1.0), ("split", 0.0)):
        with pytest.raises(SettingsError, match=f"{name}: expected"):
            apply(name, folder, strength)


def test_a_twin_of_another_shape(base: LoadedBase, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter")
    save_adapter(base, tmp_path / "twin", target_modules=["query"])
    for name in ("merge", "spectrum"):
        with pytest.raises(UnsupportedAdapter, match="twin"):
            apply(name, tmp_path / "adapter")
    one = read_original(tmp_path / "adapter").factored
    with pytest.raises(SettingsError, match="--twin"):
        EVASIONS["merge"].apply(one, 0.5, Means(np.random.default_rng(0)))


def test_names(folder: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean 'gauge'"):
        evasion_named("guage")
    with pytest.raises(SettingsError, match="way of training"):
        evasion_named("diffuse")
