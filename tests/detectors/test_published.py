"""The published network: the same numbers as the direct computation, from factors alone."""

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

from peftguard.detectors.base import State
from peftguard.detectors.checkpoint import from_checkpoint
from peftguard.detectors.convolution import published_conv, towers_of
from peftguard.detectors.published import PeftGuardNet, contrastive_loss
from peftguard.detectors.published_net import Network
from peftguard.errors import (
    InputError,
    LimitExceeded,
    MalformedFile,
    MissingExtra,
    SettingsError,
    UnsafeFile,
)
from peftguard.features.inner_product import Site, sites_of
from peftguard.features.weights import Factors, Weights
from peftguard.limits import Limits

torch = pytest.importorskip("torch")

SHAPES = {
    "layers.0.q": (16, 24),
    "layers.0.v": (9, 24),
    "layers.2.q": (16, 24),
    "layers.10.q": (16, 24),
}
quick = settings(deadline=None, max_examples=15)


def adapter(seed: int, shapes: dict[str, tuple[int, int]] = SHAPES, shift: float = 0.0) -> Weights:
    rng = np.random.default_rng(seed)
    modules = {}
    for name, (out, into) in shapes.items():
        rank = int(rng.integers(1, 6))
        B, A = rng.standard_normal((out, rank)), rng.standard_normal((rank, into))
        B[:, 0], A[0] = B[:, 0] + shift, A[0] + shift
        modules[name] = Factors(B.astype(np.float32), A.astype(np.float32))
    return Weights(f"adapter {seed}", modules)


def without(weights: Weights, *names: str) -> Weights:
    return Weights(
        weights.name, {name: own for name, own in weights.modules.items() if name not in names}
    )


def toy(n: int = 24) -> tuple[list[Weights], list[int]]:
    labels = [place % 2 for place in range(n)]
    return [adapter(place, shift=1.5 * label) for place, label in enumerate(labels)], labels


def direct(network: Network, parameters: dict[str, Any], adapters: list[Weights]) -> Any:
    """Every update multiplied out, then torch's own layers."""
    functional, hidden = torch.nn.functional, []
    for tower, (conv, dense) in zip(network.towers, network.tower_names(), strict=True):
        image = torch.zeros(len(adapters), len(tower.modules), *tower.shape)
        for place, one in enumerate(adapters):
            for channel, module in enumerate(tower.modules):
                if module in one.modules:
                    own = one.modules[module]
                    image[place, channel] = torch.from_numpy(network.gain * own.B @ own.A)
        weight, bias = parameters[f"{conv}.weight"], parameters[f"{conv}.bias"]
        x = functional.conv2d(
            image, weight, bias, stride=tower.conv.stride, padding=tower.conv.padding
        )
        x = functional.linear(
            x.flatten(1), parameters[f"{dense}.weight"], parameters[f"{dense}.bias"]
        )
        hidden.append(functional.leaky_relu(x))
    x = functional.linear(torch.cat(hidden, 1), parameters["fc2.weight"], parameters["fc2.bias"])
    x = functional.leaky_relu(x)
    return functional.linear(x, parameters["fc3.weight"], parameters["fc3.bias"])


def drawn(network: Network, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (0.1 * torch.randn(shape, generator=generator)).requires_grad_()
        for name, shape in network.shapes().items()
    }


@pytest.mark.parametrize("conv", [None, (3, 3, 2, 1), (2, 8, 8, 0), (4, 5, 3, 2), (1, 2, 4, 0)])
@pytest.mark.parametrize("names", [["layers.0.q", "layers.2.q"], list(SHAPES)])
def test_same_as_convolving_dense_updates(conv: Any, names: list[str]) -> None:
    adapters = [adapter(0), without(adapter(1), "layers.2.q"), without(adapter(2), "layers.0.v")]
    sites = [Site(name, SHAPES[name]) for name in names]
    network = Network(towers_of(sites, conv), gain=0.5)
    parameters, others = drawn(network), drawn(network)

    logits, embedding = network.forward(torch, parameters, adapters)
    expected = direct(network, others, adapters)
    (logits**3).sum().backward()
    (expected**3).sum().backward()

    assert embedding.shape == (3, 128)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    for name, parameter in parameters.items():
        scale = float(others[name].grad.abs().max())
        torch.testing.assert_close(
            parameter.grad, others[name].grad, rtol=1e-3, atol=1e-4 * max(scale, 1e-3)
        )
    arrays = {name: parameter.detach().numpy() for name, parameter in parameters.items()}
    in_numpy, _ = network.forward(np, arrays, adapters)
    np.testing.assert_allclose(in_numpy, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_convolutions_of_the_paper_and_their_sizes() -> None:
    assert published_conv((4096, 4096)) == (16, 8, 8, 0)
    assert published_conv((1024, 4096)) == (16, 8, 8, 0)
    assert published_conv((5120, 5120)).extent((5120, 5120)) == (640, 640)
    assert published_conv((768, 768)).extent((768, 768)) == (384, 384)
    assert published_conv((2048, 2048)) == (32, 8, 8, 0)
    assert published_conv((2, 384)).extent((2, 384)) == (1, 192)
    assert max(published_conv((30522, 384)).extent((30522, 384))) <= 640
    llama = Network(towers_of([Site("q", (4096, 4096)), Site("v", (1024, 4096))], None))
    assert llama.shapes()["fc1_1.weight"] == (512, 16 * 128 * 512)
    assert llama.shapes()["fc2.weight"] == (128, 1024)


@pytest.fixture(scope="module")
def fitted() -> PeftGuardNet:
    X, y = toy()
    return PeftGuardNet(epochs=8).fit(X, y)


def test_learns_and_comes_back_the_same(fitted: PeftGuardNet, tmp_path: Path) -> None:
    X, y = [adapter(100 + i, shift=1.5 * (i % 2)) for i in range(12)], [0, 1] * 6
    scores = fitted.decision_function(X)
    assert np.mean((scores > 0) == y) >= 0.9
    state = fitted.state()
    save_file(state.tensors, tmp_path / "weights.safetensors")
    again = PeftGuardNet().restore(
        State(load_file(tmp_path / "weights.safetensors"), json.loads(json.dumps(state.settings)))
    )
    np.testing.assert_array_equal(again.decision_function(X), scores)


def test_only_training_needs_torch(fitted: PeftGuardNet, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = toy(4)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert np.isfinite(fitted.decision_function(X)).all()
    with pytest.raises(MissingExtra, match="torch"):
        PeftGuardNet().fit(X, y)


def test_a_seed_fixes_the_scores() -> None:
    X, y = toy(8)
    first, again = (PeftGuardNet(epochs=1, seed=3).fit(X, y) for _ in range(2))
    np.testing.assert_allclose(first.decision_function(X), again.decision_function(X), rtol=1e-5)
    other = PeftGuardNet(epochs=1, seed=4).fit(X, y)
    assert not np.allclose(first.decision_function(X), other.decision_function(X))


def test_contrastive_training_learns() -> None:
    X, y = toy()
    detector = PeftGuardNet(contrastive=True, epochs=20).fit(X, y)
    assert np.mean(detector.predict(X) == y) >= 0.9
    assert len(detector.losses_) == 20


@quick
@given(seed=st.integers(0, 2**32 - 1), decades=st.floats(0, 1.5))
def test_factors_and_order_do_not_matter(fitted: PeftGuardNet, seed: int, decades: float) -> None:
    rng = np.random.default_rng(seed)
    one = adapter(seed)
    modules = {}
    for name in rng.permutation(list(one.modules)):
        own = one.modules[name]
        rank = len(own.A)
        turns = [np.linalg.qr(rng.standard_normal((rank, rank)))[0] for _ in range(2)]
        M = turns[0] * np.logspace(0, -decades, rank) @ turns[1]
        B, A = own.B @ np.linalg.inv(M), M @ own.A
        modules[str(name)] = Factors(B.astype(np.float32), A.astype(np.float32))
    scores = fitted.decision_function([one, Weights("other", modules)])
    assert scores[1] == pytest.approx(scores[0], rel=1e-3, abs=1e-4)


def test_order_of_modules_in_training_does_not_matter() -> None:
    X, y = toy(6)
    turned = [Weights(one.name, dict(reversed(one.modules.items()))) for one in X]
    first, second = (PeftGuardNet(epochs=1).fit(some, y) for some in (X, turned))
    assert first.network_ == second.network_
    assert first.network_.towers[0].modules == ("layers.0.q", "layers.2.q", "layers.10.q")


def test_gain_undoes_a_scale() -> None:
    X, y = toy(6)
    doubled = [
        Weights(one.name, {name: Factors(2 * own.B, own.A) for name, own in one.modules.items()})
        for one in X
    ]
    plain = PeftGuardNet(epochs=1).fit(X, y).decision_function(X)
    halved = PeftGuardNet(epochs=1, gain=0.5).fit(doubled, y).decision_function(doubled)
    np.testing.assert_allclose(halved, plain, rtol=1e-5)


def test_contrastive_loss_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    embedding, labels = rng.standard_normal((5, 4)), np.array([0, 0, 1, 1, 1])
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    terms = []
    for i in range(5):
        others = [j for j in range(5) if j != i]
        total = sum(np.exp(unit[i] @ unit[j] / 0.07) for j in others)
        same = [j for j in others if labels[j] == labels[i]]
        terms.append(-np.mean([np.log(np.exp(unit[i] @ unit[j] / 0.07) / total) for j in same]))
    found = contrastive_loss(torch.from_numpy(embedding), torch.from_numpy(labels))
    assert float(found) == pytest.approx(np.mean(terms), rel=1e-9)
    alone = contrastive_loss(torch.ones(2, 3, requires_grad=True), torch.tensor([0, 1]))
    assert float(alone.detach()) == 0.0


def test_what_cannot_be_learnt_from_is_refused() -> None:
    X, _ = toy(4)
    with pytest.raises(SettingsError, match="one class only"):
        PeftGuardNet().fit(X, [0, 0, 0, 0])
    with pytest.raises(SettingsError, match="no adapter has an update"):
        PeftGuardNet().fit([Weights("a", {}), Weights("b", {})], [0, 1])
    for conv in ((4, 30, 30, 0), (4, 3, 0, 0), (4, 3, 1, -1), (4, 3)):
        with pytest.raises(SettingsError, match="conv: "):
            PeftGuardNet(conv=conv).fit(X, [0, 1, 0, 1])


def test_a_state_that_does_not_fit_is_refused(fitted: PeftGuardNet) -> None:
    state = fitted.state()
    tensors = dict(state.tensors)
    del tensors["fc2.bias"]
    with pytest.raises(KeyError):
        PeftGuardNet().restore(State(tensors, state.settings))
    wrong = state.tensors | {"fc2.bias": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=r"fc2\.bias"):
        PeftGuardNet().restore(State(wrong, state.settings))
    for towers in ([], [[["q"], [4, 4], [1, 3, 0, 0]]], [[[], [4, 4], [1, 3, 1, 0]]]):
        with pytest.raises(ValueError, match="towers"):
            PeftGuardNet().restore(State(state.tensors, {"gain": 1.0, "towers": towers}))


def official(names: list[str]) -> tuple[Network, dict[str, Any]]:
    """Weights as the released code stores them: one tower, or `_q` and `_v`."""
    network = Network(towers_of([Site(name, SHAPES[name]) for name in names], None))
    state = {name: tensor.detach() for name, tensor in drawn(network).items()}
    for place, letter in enumerate("qv"):
        state = {name.replace(f"_{place}.", f"_{letter}."): own for name, own in state.items()}
    return network, state


@pytest.mark.parametrize("names", [["layers.0.q", "layers.2.q"], ["layers.0.q", "layers.0.v"]])
@pytest.mark.parametrize("form", ["pth", "prefixed", "nested", "safetensors"])
def test_reads_released_checkpoints(names: list[str], form: str, tmp_path: Path) -> None:
    network, state = official(names)
    path = tmp_path / "best_model.pth"
    if form == "safetensors":
        save_file({name: tensor.numpy() for name, tensor in state.items()}, path)
    elif form == "nested":
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        prefix = "module." if form == "prefixed" else ""
        torch.save({f"{prefix}{name}": tensor for name, tensor in state.items()}, path)
    one = adapter(7, {name: SHAPES[name] for name in names})
    detector = from_checkpoint(path, sites_of([one]), gain=2.0)
    expected = direct(Network(network.towers, 2.0), dict(drawn(network)), [one]).detach().numpy()
    np.testing.assert_allclose(
        detector.decision_function([one]), expected[:, 1] - expected[:, 0], rtol=1e-4, atol=1e-5
    )


def test_a_checkpoint_that_does_not_fit_names_the_layer(tmp_path: Path) -> None:
    sites = [Site(name, SHAPES[name]) for name in ("layers.0.q", "layers.2.q")]
    _, state = official(["layers.0.q", "layers.2.q"])
    arrays = {name: tensor.numpy() for name, tensor in state.items()}

    def refusal(changes: dict[str, Any], channels: list[Site] = sites) -> InputError:
        kept = {name: array for name, array in (arrays | changes).items() if array is not None}
        save_file(kept, tmp_path / "net.safetensors")
        with pytest.raises(MalformedFile) as caught:
            from_checkpoint(tmp_path / "net.safetensors", channels)
        return caught.value

    other = refusal({}, sites[:1])
    assert other.key == "conv1.weight"
    assert "(16, 1, 8, 8)" in str(other)
    assert "(16, 2, 8, 8)" in str(other)
    assert refusal({"fc3.bias": None}).key == "fc3.bias"
    assert refusal({"bn1.weight": np.ones(3, np.float32)}).key == "bn1.weight"
    assert refusal({"a.fc2.bias": arrays["fc2.bias"]}).problem.endswith("comes twice")
    assert refusal({"conv1_q.weight": arrays["conv1.weight"]}).key == "conv1_q.weight"
    assert refusal({"fc2.bias": np.ones(128, np.int32)}).key == "fc2.bias"
    assert refusal({"fc2.bias": np.full(128, np.nan, np.float32)}).problem == "not finite"
    with pytest.raises(SettingsError, match="channels"):
        from_checkpoint(tmp_path / "net.safetensors", [])


def test_a_hostile_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"conv1.weight": Payload()}, tmp_path / "net.pth")
    sites = [Site("layers.0.q", (16, 24))]
    with pytest.raises(UnsafeFile):
        from_checkpoint(tmp_path / "net.pth", sites)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(LimitExceeded):
        from_checkpoint(tmp_path / "net.pth", sites, limits=Limits(max_file_bytes=100))
