"""Five figures against their definitions on the dense update, and which layer they are of."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from peftguard.detectors.spectral import Spectral
from peftguard.errors import SettingsError
from peftguard.features.memory import Memory
from peftguard.features.weights import Factors, Weights

ROLES = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj")


def adapter(seed: int, spike: float = 1.0, layers: int = 3, *, rank: int = 4) -> Weights:
    """The first direction of every update is `spike` times as strong as the others."""
    rng = np.random.default_rng(seed)
    modules = {}
    for layer in range(layers):
        for role in ROLES:
            B = rng.normal(size=(12, rank)) * np.array([spike] + [1.0] * (rank - 1))
            factors = B.astype(np.float32), rng.normal(size=(rank, 10)).astype(np.float32)
            modules[f"model.layers.{layer}.{role}"] = Factors(*factors)
    return Weights(str(seed), modules)


def zoo(count: int = 20) -> tuple[list[Weights], np.ndarray]:
    labels = np.arange(count) % 2
    return [adapter(seed, 1 + 2 * label) for seed, label in enumerate(labels)], labels


def by_definition(weights: Weights, module: str) -> list[float]:
    update = (weights.modules[module].B @ weights.modules[module].A).astype(float)
    values = np.linalg.svd(update, compute_uv=False)[: len(weights.modules[module].A)]
    shares = values / values.sum()
    return [
        values[0],
        np.linalg.norm(update),
        values[0] ** 2 / np.sum(values**2),
        -np.sum(shares * np.log(shares)),
        stats.kurtosis(update, axis=None, fisher=False),
    ]


def test_as_a_pipeline_on_dense_updates() -> None:
    X, y = zoo()
    modules = [f"model.layers.1.self_attn.{role}" for role in ("q_proj", "v_proj")]
    table = np.array([[f for module in modules for f in by_definition(x, module)] for x in X])
    expected = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
    ).fit(table, y)
    found = Spectral(layer=1).fit(X, y)
    assert found.modules_ == modules
    np.testing.assert_allclose(
        found.decision_function(X), expected.decision_function(table), atol=1e-3
    )
    assert (found.predict(X) == y).mean() > 0.8


def test_layer_as_published_is_index_20_of_28() -> None:
    X = [adapter(seed, layers=28, rank=1) for seed in range(2)]
    assert {module.split(".")[2] for module in Spectral().fit(X, [0, 1]).modules_} == {"20"}


def test_all_layers() -> None:
    X, y = zoo()
    modules = Spectral(layer="all").fit(X, y).modules_
    assert len(modules) == 6
    assert not any("mlp" in module for module in modules)


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.1.attention.self.query",
        "bert.encoder.layer.1.attention.output.dense",
        "encoder.block.1.layer.0.SelfAttention.o",
        "distilbert.transformer.layer.1.attention.out_lin",
        "transformer.h.1.attn.c_attn",
        "transformer.layers.1.self_attention.query_key_value",
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0",
    ],
)
def test_names_of_attention_projections(name: str) -> None:
    rng = np.random.default_rng(0)
    X = [
        Weights("a", {n: Factors(rng.normal(size=(4, 1)), rng.normal(size=(1, 4))) for n in names})
        for names in [(name, "model.layers.1.mlp.dense"), (name,)]
    ]
    assert Spectral(layer=1).fit(X, [0, 1]).modules_ == [name]


@pytest.mark.parametrize("layer", [7, "every"])
def test_no_such_layer(layer: int | str) -> None:
    X, y = zoo(4)
    with pytest.raises(SettingsError, match=r"layers \[0, 1, 2\]"):
        Spectral(layer=layer).fit(X, y)


def test_no_attention_projection() -> None:
    X = [Weights("a", {"fc": Factors(np.ones((3, 1)), np.ones((1, 3)))}) for _ in range(2)]
    with pytest.raises(SettingsError, match="no attention projection"):
        Spectral().fit(X, [0, 1])


def test_other_factors_score_the_same() -> None:
    X, y = zoo()
    model, rng = Spectral().fit(X, y), np.random.default_rng(3)
    turned = {}
    for module, factors in X[0].modules.items():
        mix = rng.normal(size=(len(factors.A),) * 2)
        B, A = factors.B @ np.linalg.inv(mix), mix @ factors.A
        turned[module] = Factors(B.astype(np.float32), A.astype(np.float32))
    expected = model.decision_function(X[:1])
    found = model.decision_function([Weights("turned", turned)])
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_what_is_missing_counts_as_average() -> None:
    X, y = zoo()
    zero = Factors(np.zeros((12, 4)), np.ones((4, 10)))
    X[5] = Weights("zero", dict.fromkeys(X[5].modules, zero))
    X[6] = Weights("rank 0", {m: Factors(np.ones((12, 0)), np.ones((0, 10))) for m in X[6].modules})
    model = Spectral().fit(X, y)
    assert np.isfinite(model.decision_function(X)).all()
    assert model.decision_function([Weights("none", {})])[0] == model.intercept_


def test_memory_changes_nothing() -> None:
    X, y = zoo()
    memory = Memory()
    expected = Spectral(layer="all").fit(X, y).decision_function(X)
    for _ in range(2):
        found = Spectral(layer="all", memory=memory).fit(X, y).decision_function(X)
        np.testing.assert_array_equal(found, expected)
