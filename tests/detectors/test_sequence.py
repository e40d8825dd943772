"""The layer sequence and its network: figures of the update alone, whatever the base model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from peftguard.adapters.update import Update
from peftguard.detectors.base import State
from peftguard.detectors.sequence import Sequence1d, _forward, _inputs, _padded
from peftguard.errors import MissingExtra, SettingsError
from peftguard.features.layer_sequence import (
    N_FIGURES,
    TOP,
    figures_of,
    layer_sequence,
)
from peftguard.features.memory import Memory
from peftguard.features.roles import ROLES, role_of
from peftguard.features.spectrum import profile
from peftguard.features.weights import Factors, Weights

torch = pytest.importorskip("torch")

quick = settings(deadline=None, max_examples=15)
LLAMA = "model.layers.{}.self_attn.{}_proj"


def adapter(
    seed: int, decay: float = 0.0, layers: int = 3, name: str = LLAMA, roles: str = "qv"
) -> Weights:
    """Spectra that fall by `decay` decades."""
    rng = np.random.default_rng(seed)
    modules = {}
    for layer in range(layers):
        for role in roles:
            B = rng.standard_normal((20, 4)) * np.logspace(0, -decay, 4)
            A = rng.standard_normal((4, 30))
            factors = Factors(B.astype(np.float32), A.astype(np.float32))
            modules[name.format(layer, role)] = factors
    return Weights(f"adapter {seed}", modules)


def toy(n: int = 40, first: int = 0) -> tuple[list[Weights], list[int]]:
    labels = [place % 2 for place in range(n)]
    return [adapter(first + place, 1.5 * label) for place, label in enumerate(labels)], labels


@pytest.fixture(scope="module")
def fitted() -> Sequence1d:
    X, y = toy()
    return Sequence1d(epochs=25).fit(X, y)


def test_figures_are_those_of_the_profile() -> None:
    own = adapter(3, 0.7).modules[LLAMA.format(0, "q")]
    figures, about = figures_of(own), profile(Update("m", own.A, own.B))
    values = np.linalg.svd(own.B @ own.A, compute_uv=False)[:4]
    magnitudes = [np.sum(values**2), values.sum(), about.frobenius, about.sigma_1, about.kurtosis]
    np.testing.assert_allclose(np.expm1(figures[:5]), magnitudes, rtol=1e-5)
    np.testing.assert_allclose(np.expm1(figures[5:9]), values, rtol=1e-5)
    np.testing.assert_array_equal(figures[9 : 5 + TOP], 0)
    ratios = [
        about.energy_concentration,
        about.stable_rank,
        about.spectral_entropy,
        about.effective_rank,
    ]
    np.testing.assert_allclose(figures[5 + TOP :], ratios, rtol=1e-6)


def test_a_zero_update_has_zeros() -> None:
    zero = Factors(np.zeros((5, 2), np.float32), np.ones((2, 6), np.float32))
    np.testing.assert_array_equal(figures_of(zero), np.zeros(N_FIGURES))


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("self_attn.q_proj", "q"),
        ("attention.self.query", "q"),
        ("attn1.to_out.0", "o"),
        ("attention.output.dense", "o"),
        ("output.dense", "down"),
        ("intermediate.dense", "up"),
        ("attn.c_attn", "qkv"),
        ("mlp.c_proj", "down"),
        ("layer.1.DenseReluDense.wo", "down"),
        ("layer.0.SelfAttention.v", "v"),
        ("block_sparse_moe.experts.3.w1", "gate"),
        ("classifier", "other"),
        ("7", "other"),
    ],
)
def test_roles(path: str, role: str) -> None:
    assert role_of(path) == role


def test_layers_come_in_the_order_of_their_numbers() -> None:
    one = adapter(0, layers=12)
    found = layer_sequence(Weights("turned", dict(reversed(one.modules.items()))))
    np.testing.assert_array_equal(found.figures, layer_sequence(one).figures)
    assert found.figures.shape == (12, len(ROLES), N_FIGURES)
    own = figures_of(one.modules[LLAMA.format(10, "v")]).astype(np.float32)
    np.testing.assert_array_equal(found.figures[10, ROLES.index("v")], own)
    np.testing.assert_array_equal(found.mask.sum(0) > 0, [role in ("q", "v") for role in ROLES])


def test_modules_of_one_layer_and_role_are_averaged() -> None:
    one = adapter(0, layers=2, name="model.layers.0.experts.{}.{}_proj", roles="q")
    found = layer_sequence(one)
    expected = np.mean([figures_of(own) for own in one.modules.values()], axis=0)
    np.testing.assert_allclose(found.figures[0, ROLES.index("q")], expected, rtol=1e-6)


@quick
@given(seed=st.integers(0, 2**32 - 1), decades=st.floats(0, 1.5))
def test_factors_and_order_do_not_matter(fitted: Sequence1d, seed: int, decades: float) -> None:
    rng = np.random.default_rng(seed)
    one = adapter(seed, float(rng.random()))
    modules = {}
    for name in rng.permutation(list(one.modules)):
        own = one.modules[name]
        turns = [np.linalg.qr(rng.standard_normal((4, 4)))[0] for _ in range(2)]
        M = turns[0] * np.logspace(0, -decades, 4) @ turns[1]
        B, A = own.B @ np.linalg.inv(M), M @ own.A
        modules[str(name)] = Factors(B.astype(np.float32), A.astype(np.float32))
    scores = fitted.decision_function([one, Weights("other", modules)])
    assert scores[1] == pytest.approx(scores[0], rel=1e-3, abs=1e-3)


def test_learns_and_comes_back_the_same(fitted: Sequence1d, tmp_path: Path) -> None:
    X, y = toy(20, first=100)
    scores = fitted.decision_function(X)
    assert np.mean((scores > 0) == y) >= 0.9
    state = fitted.state()
    save_file(state.tensors, tmp_path / "weights.safetensors")
    again = Sequence1d().restore(
        State(load_file(tmp_path / "weights.safetensors"), json.loads(json.dumps(state.settings)))
    )
    np.testing.assert_array_equal(again.decision_function(X), scores)


def test_scores_another_base(fitted: Sequence1d) -> None:
    """Other names, depth and target modules; roles that were not trained on change nothing."""
    name = "bert.encoder.layer.{}.attention.self.{}"
    there = [adapter(50 + i, 1.5 * (i % 2), layers=5, name=name) for i in range(10)]
    renamed = [
        Weights(
            one.name,
            {
                path.replace("self.q", "self.query").replace("self.v", "self.value"): own
                for path, own in one.modules.items()
            },
        )
        for one in there
    ]
    scores = fitted.decision_function(renamed)
    assert np.mean((scores > 0) == [0, 1] * 5) >= 0.9
    more = adapter(9, layers=5, name="bert.encoder.layer.{}.intermediate.dense{}", roles=".")
    more = {path.removesuffix("."): own for path, own in more.modules.items()}
    wider = [Weights(one.name, {**one.modules, **more}) for one in renamed]
    np.testing.assert_array_equal(fitted.decision_function(wider), scores)


def test_scoring_and_training_compute_the_same(fitted: Sequence1d) -> None:
    """numpy one by one, torch in one padded batch of several lengths."""
    X = [adapter(i, layers=layers) for i, layers in enumerate((1, 3, 7))]
    batch, mask = _padded([_inputs(layer_sequence(one), fitted.scale_) for one in X])
    parameters = {name: torch.from_numpy(own) for name, own in fitted.parameters_.items()}
    logits = _forward(torch, parameters, torch.from_numpy(batch), torch.from_numpy(mask))
    np.testing.assert_allclose(logits.numpy(), fitted.decision_function(X), rtol=1e-4, atol=1e-5)


def test_convolutions_are_those_of_torch(fitted: Sequence1d) -> None:
    one = adapter(1, layers=6)
    x: Any = torch.from_numpy(_inputs(layer_sequence(one), fitted.scale_)).T[None]
    parameters = {name: torch.from_numpy(own) for name, own in fitted.parameters_.items()}
    for place in range(3):
        weight = parameters[f"conv{place}.weight"].reshape(64, 5, -1).transpose(1, 2)
        bias = parameters[f"conv{place}.bias"]
        x = torch.relu(torch.nn.functional.conv1d(x, weight, bias, padding=2))
    pooled = torch.cat([x.mean(2), x.amax(2)], 1)
    expected = pooled @ parameters["out.weight"].T + parameters["out.bias"]
    score = fitted.decision_function([one])
    np.testing.assert_allclose(score, expected[:, 0].numpy(), rtol=1e-4, atol=1e-5)


def test_only_training_needs_torch(fitted: Sequence1d, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = toy(4)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert np.isfinite(fitted.decision_function(X)).all()
    with pytest.raises(MissingExtra, match="torch"):
        Sequence1d().fit(X, y)


def test_a_seed_fixes_the_scores() -> None:
    X, y = toy(10)
    memory = Memory()
    first, again = (Sequence1d(epochs=2, seed=5, memory=memory).fit(X, y) for _ in range(2))
    np.testing.assert_allclose(first.decision_function(X), again.decision_function(X), rtol=1e-5)
    other = Sequence1d(epochs=2, seed=6, memory=memory).fit(X, y)
    assert not np.allclose(first.decision_function(X), other.decision_function(X))


def test_an_adapter_without_modules_is_scored(fitted: Sequence1d) -> None:
    assert np.isfinite(fitted.decision_function([Weights("none", {})])).all()


def test_what_cannot_be_learnt_from_is_refused() -> None:
    X, _ = toy(4)
    with pytest.raises(SettingsError, match="one class only"):
        Sequence1d().fit(X, [1, 1, 1, 1])
    with pytest.raises(SettingsError, match="no adapter has an update"):
        Sequence1d().fit([Weights("a", {}), Weights("b", {})], [0, 1])


def test_a_state_that_does_not_fit_is_refused(fitted: Sequence1d) -> None:
    tensors = dict(fitted.state().tensors)
    del tensors["mean"]
    with pytest.raises(KeyError):
        Sequence1d().restore(State(tensors, {}))
    wrong = fitted.state().tensors | {"out.weight": np.zeros((2, 128), np.float32)}
    with pytest.raises(ValueError, match=r"out\.weight"):
        Sequence1d().restore(State(wrong, {}))
