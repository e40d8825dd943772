"""The meta-classifier of the PEFTGuard paper (arXiv 2411.17453), computed from the factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peftguard.detectors.base import Estimator, Scores, State, array_of, as_labels
from peftguard.detectors.convolution import Conv, Tower, towers_of
from peftguard.detectors.published_net import Network
from peftguard.detectors.torch_training import (
    Outcome,
    Places,
    Schedule,
    import_torch,
    initial,
    train,
)
from peftguard.errors import SettingsError
from peftguard.features.inner_product import sites_of
from peftguard.features.order import by_layer
from peftguard.features.weights import Weights

_BATCH = 16
_TEMPERATURE, _CONTRASTIVE_WEIGHT = 0.07, 0.1


class PeftGuardNet(Estimator):
    """One convolution over all updates and three dense layers, trained as published.

    Fitting needs torch (extra `torch`), scoring numpy alone. Parameters, gradients and Adam's
    moments take 16 bytes a weight, and nearly all weights are those of FC1: 19 million on
    MiniLM's 384 x 384, but 1.8 billion on RoBERTa's 768 x 768 as published, for which
    `conv=(16, 8, 8, 0)` makes 75 million.

    Args:
        conv: filters, kernel, stride and padding of every tower; None: as published for the shape.
        contrastive: the paper's variant, with a supervised contrastive loss on the embedding.
        gain: what multiplies every update. The published pipeline feeds B @ A without alpha / r;
            updates here include it. Where all adapters share one alpha / r, its inverse gives
            the published input.
        epochs: at most; the cosine ends there.
        seed: of the start, the validation part and the order.
    """

    name: ClassVar[str] = "peftguard"
    extra: ClassVar[str | None] = "torch"

    def __init__(
        self,
        conv: Sequence[int] | None = None,
        contrastive: bool = False,
        gain: float = 1.0,
        epochs: int = 20,
        seed: int = 0,
    ) -> None:
        self.conv, self.contrastive, self.gain = conv, contrastive, gain
        self.epochs, self.seed = epochs, seed

    def fit(self, X: Sequence[Weights], y: ArrayLike) -> Self:
        """Train. Arguments and errors as of `Estimator.fit`.

        Raises:
            MissingExtra: torch is not installed.
        """
        labels = as_labels(X, y)
        self.network_ = Network(self._towers(X), self.gain)
        step = _Loss(self.network_, X, labels, self.contrastive)
        start = initial(self.network_.shapes(), self.seed)
        self.parameters_, self.losses_ = train(start, step, labels, self._schedule(), self.seed)
        return self

    def decision_function(self, X: Sequence[Weights]) -> Scores:
        """(n,) logit of backdoored less that of benign; unknown modules are not looked at."""
        scores = np.zeros(len(X))
        for start in range(0, len(X), _BATCH):
            some = X[start : start + _BATCH]
            logits, _ = self.network_.forward(np, self.parameters_, some)
            scores[start : start + len(some)] = logits[:, 1] - logits[:, 0]
        return scores

    def state(self) -> State:
        """Parameters, float32, and the towers."""
        towers = [[list(field) for field in tower] for tower in self.network_.towers]
        settings = {"gain": self.network_.gain, "towers": towers}
        return State(dict(self.parameters_), settings)

    def restore(self, state: State) -> Self:
        """Errors as of `Estimator.restore`."""
        stored, gain = state.settings["towers"], state.settings["gain"]
        try:
            towers, gain = [_tower(*fields) for fields in stored], float(gain)
        except TypeError as error:
            raise ValueError(f"towers, gain: expected lists and a number; {error}") from None
        if not towers:
            raise ValueError("towers: expected at least one, found none")
        self.network_ = Network(towers, gain)
        self.parameters_ = {
            name: array_of(state, name, shape).astype(np.float32, copy=False)
            for name, shape in self.network_.shapes().items()
        }
        return self

    def _towers(self, X: Sequence[Weights]) -> list[Tower]:
        sites = sorted(sites_of(X), key=lambda site: (by_layer(site.module), site.shape))
        if not sites:
            raise SettingsError("no adapter has an update")
        return towers_of(sites, self.conv)

    def _schedule(self) -> Schedule:
        return Schedule(
            epochs=self.epochs,
            batch=16 if self.contrastive else 4,
            rate=1e-4,
            last_rate=5e-6,
            decay=1e-5,
            patience=None if self.contrastive else 5,
            patient_from=self.epochs // 2,
        )


class _Loss:
    """Binary cross-entropy on one-hot labels, and in training the contrastive loss if asked for."""

    def __init__(
        self, network: Network, X: Sequence[Weights], labels: NDArray[np.int64], contrastive: bool
    ) -> None:
        self.network, self.X, self.labels = network, X, labels
        self.contrastive = contrastive

    def __call__(self, parameters: Mapping[str, Any], some: Places, training: bool) -> Outcome:
        torch = import_torch("training")
        adapters, labels = [self.X[place] for place in some], torch.asarray(self.labels[some])
        logits, embedding = self.network.forward(torch, parameters, adapters)
        functional = torch.nn.functional
        loss = functional.binary_cross_entropy_with_logits(
            logits, functional.one_hot(labels, 2).float()
        )
        if training and self.contrastive:
            loss = loss + _CONTRASTIVE_WEIGHT * contrastive_loss(embedding, labels)
        return Outcome(logits, loss)


def contrastive_loss(embedding: Any, labels: Any, temperature: float = _TEMPERATURE) -> Any:
    """Supervised contrastive loss (Khosla et al. 2020, L_out), a torch scalar.

    The published code also sums over each adapter's likeness to itself, at minus infinity, and
    divides by 1e-8 where an adapter is the only one of its class; here both are left out.

    Args:
        embedding: (n, d).
        labels: (n,) integers.
        temperature: of the softmax.
    """
    torch = import_torch("training")
    unit = torch.nn.functional.normalize(embedding, dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool)
    alike = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    log_share = alike - alike.logsumexp(1, keepdim=True)
    same = (labels[:, None] == labels) & ~itself
    count = same.sum(1)
    if not count.any():
        return embedding.sum() * 0.0
    means = log_share.masked_fill(~same, 0.0).sum(1)[count > 0] / count[count > 0]
    return -means.mean()


def _tower(modules: Sequence[str], shape: Sequence[int], conv: Sequence[int]) -> Tower:
    high, wide = map(int, shape)
    tower = Tower(tuple(map(str, modules)), (high, wide), Conv(*map(int, conv)))
    if not (modules and tower.fits):
        raise ValueError(f"towers: convolution {tuple(tower.conv)} does not fit {tower.shape}")
    return tower
