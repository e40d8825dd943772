"""The scores in torch are the detectors' own, and their gradients lead down."""

from __future__ import annotations

import numpy as np
import pytest
from tests.toy_base import write_bert
from tests.toys import WIDTH

torch = pytest.importorskip("torch")

from peftguard.adversary.differentiable import DIFFERENTIABLE, Score, score_of  # noqa: E402
from peftguard.detectors.base import Estimator  # noqa: E402
from peftguard.detectors.ensemble import Ensemble  # noqa: E402
from peftguard.detectors.registry import estimator_named  # noqa: E402
from peftguard.errors import SettingsError  # noqa: E402
from peftguard.evaluation.zoo import Zoo  # noqa: E402
from peftguard.features.weights import Weights  # noqa: E402


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_bert(tmp_path_factory.mktemp("base"), width=WIDTH))


@pytest.fixture(params=DIFFERENTIABLE)
def fitted(request: pytest.FixtureRequest, zoo: Zoo, base: str) -> Estimator:
    return fit(request.param, zoo, base)


def fit(kind: str, zoo: Zoo, base: str) -> Estimator:
    judged = [entry for entry in zoo.entries if not entry.dud]
    X, y = [entry.weights for entry in judged], [int(entry.positive) for entry in judged]
    made = estimator_named(kind)
    if kind == "response":
        made.set_params(base=base)
    return made.fit(X, y)


def evaluated(score: Score, adapter: Weights) -> tuple[float, list[torch.Tensor]]:
    """The score, and its gradient by every B and A."""
    pairs = {
        name: (torch.from_numpy(own.B).requires_grad_(), torch.from_numpy(own.A).requires_grad_())
        for name, own in adapter.modules.items()
    }
    value = score(pairs)
    leaves = [factor for pair in pairs.values() for factor in pair]
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return value.item(), [torch.zeros(1) if own is None else own for own in found]


def test_the_score_is_the_detectors(fitted: Estimator, zoo: Zoo) -> None:
    for entry in zoo.entries[::9]:
        value, _ = evaluated(score_of(fitted, entry.weights), entry.weights)
        expected = fitted.decision_function([entry.weights])[0]
        # `response` rounds what it reads to half precision.
        assert value == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_an_ensemble_of_both_members(zoo: Zoo, base: str) -> None:
    both = Ensemble()
    both.members_ = [fit("outputs", zoo, base), fit("response", zoo, base)]
    both.centre_, both.spread_ = np.array([0.1, 0.2]), np.array([1.5, 0.5])
    both.threshold_ = 0.3
    adapter = zoo.entries[70].weights
    value, gradients = evaluated(score_of(both, adapter), adapter)
    assert value == pytest.approx(both.decision_function([adapter])[0], abs=5e-3)
    assert all(bool(gradient.any()) for gradient in gradients)


def test_gradients_are_those_of_the_score(fitted: Estimator, zoo: Zoo) -> None:
    adapter = zoo.entries[70].weights
    score = score_of(fitted, adapter)
    before, gradients = evaluated(score, adapter)
    steps = [1e-4 * gradient.sign() for gradient in gradients]
    expected = sum(float((g * s).sum()) for g, s in zip(gradients, steps, strict=True))
    moved = iter(steps)
    pairs = {
        name: (torch.from_numpy(own.B) + next(moved), torch.from_numpy(own.A) + next(moved))
        for name, own in adapter.modules.items()
    }
    assert score(pairs).item() - before == pytest.approx(expected, rel=0.05, abs=1e-5)


def test_a_soft_maximum_is_in_the_gradient_alone(zoo: Zoo, base: str) -> None:
    response, adapter = fit("response", zoo, base), zoo.entries[70].weights
    hard, one_word = evaluated(score_of(response, adapter), adapter)
    soft, several = evaluated(score_of(response, adapter, softness=1.0), adapter)
    almost, same = evaluated(score_of(response, adapter, softness=1e-3), adapter)
    assert soft == pytest.approx(hard, abs=1e-5)
    assert almost == pytest.approx(hard, abs=1e-5)
    for sharp, smooth, limit in zip(one_word, several, same, strict=True):
        torch.testing.assert_close(limit, sharp, atol=1e-4, rtol=1e-3)
        if sharp.any():
            assert not torch.allclose(smooth, sharp, rtol=0.01)


def test_no_gradient(zoo: Zoo, base: str) -> None:
    with pytest.raises(SettingsError, match="no gradient of spectral"):
        score_of(fit("spectral", zoo, base), zoo.entries[0].weights)
