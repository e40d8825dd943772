"""Detectors' scores once more, in torch, so that they have gradients with respect to the factors.

From the factors B (out, r, scale folded in) and A (r, in) on, the arithmetic is the detector's own,
but for three things: singular value decompositions, which only make factors canonical, are left
out, as no score depends on them; roundings to half precision are, as they have no gradient; and the
loudest word of `response` may have the gradient of a soft maximum, which pushes down more than one
word at a time; its value stays that of the loudest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from peftguard.detectors.base import Estimator
from peftguard.detectors.ensemble import Ensemble
from peftguard.detectors.gram import Gram
from peftguard.detectors.kernel import KernelMachine
from peftguard.detectors.linear import Linear
from peftguard.detectors.outputs import Outputs
from peftguard.detectors.response import Response
from peftguard.errors import SettingsError
from peftguard.features.attention import CROWD, LEAST, NORMAL_QUARTILES, first_attention
from peftguard.features.inner_product import Site
from peftguard.features.weights import Factors, Weights

Pair = tuple[torch.Tensor, torch.Tensor]
"""B (out, r) and A (r, in)."""
Score = Callable[[dict[str, Pair]], torch.Tensor]
"""Factors by module to a score, higher is more suspicious."""

DIFFERENTIABLE = ("gram", "outputs", "linear", "response", "ensemble")


def score_of(estimator: Estimator, adapter: Weights, softness: float = 0.0) -> Score:
    """The estimator's score as a function of the adapter's factors.

    Args:
        estimator: fitted or restored, of a kind in `DIFFERENTIABLE`.
        adapter: whose modules and widths the factors will have.
        softness: of the maximum over words whose gradient is taken, in units of what is maximised;
            0 takes that of the loudest alone.

    Raises:
        SettingsError: no gradient can be had of this kind.
    """
    estimator.state()  # a kernel machine combines its support into weights only when it must
    if isinstance(estimator, Outputs):
        return _machine(estimator, adapter, _written(estimator))
    if isinstance(estimator, Gram):
        return _machine(estimator, adapter, _along(estimator.weights_, normalised=True))
    if isinstance(estimator, Linear):
        along = _along(estimator.weights_, normalised=False)
        sites = _present(estimator.weights_, adapter)
        intercept = estimator.intercept_
        return lambda factors: (
            _total(along(site, factors[site.module]) for site in sites) + intercept
        )
    if isinstance(estimator, Response):
        return _Lone.of(estimator, adapter, softness)
    if isinstance(estimator, Ensemble):
        return _sum_of_members(estimator, adapter, softness)
    raise SettingsError(
        f"no gradient of {estimator.name}; known: {', '.join(DIFFERENTIABLE)}. `search` needs none"
    )


Part = Callable[[Site, Pair], torch.Tensor]
"""What one place adds to a score."""


def _machine(machine: KernelMachine, adapter: Weights, part: Part) -> Score:
    """A mean of normalised responses, over sqrt(number of places) as both sides are normalised."""
    sites = _present(machine.sites_, adapter)
    intercept = machine.intercept_

    def score(factors: dict[str, Pair]) -> torch.Tensor:
        total = _total(part(site, factors[site.module]) for site in sites)
        return total / max(1, len(sites)) ** 0.5 + intercept

    return score


def _present(sites: Iterable[Site], adapter: Weights) -> list[Site]:
    return [site for site in sites if site.factors(adapter) is not None]


def _total(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    return sum(parts, torch.zeros((), dtype=torch.float64))


def _written(machine: Outputs) -> Part:
    """tr(M dW dW^T) / |dW dW^T|, with G = A A^T: dW dW^T = B G B^T."""
    kept = {site: torch.from_numpy(M) for site, M in machine.weights_.items()}

    def part(site: Site, pair: Pair) -> torch.Tensor:
        B, A = (factor.double() for factor in pair)
        G = A @ A.T
        written = ((kept[site] @ B) * (B @ G)).sum()
        inner = G @ (B.T @ B)
        return written / (inner * inner.T).sum().clamp_min(LEAST**2).sqrt()

    return part


def _along(weights: dict[Site, Factors], *, normalised: bool) -> Part:
    """<W, dW>, over |dW| if that is what the detector does."""
    kept = {
        site: (torch.from_numpy(own.B).double(), torch.from_numpy(own.A).double())
        for site, own in weights.items()
    }

    def part(site: Site, pair: Pair) -> torch.Tensor:
        B, A = (factor.double() for factor in pair)
        W_B, W_A = kept[site]
        along = ((W_B.T @ B) * (W_A @ A.T)).sum()
        if not normalised:
            return along
        return along / ((B.T @ B) * (A @ A.T)).sum().clamp_min(LEAST**2).sqrt()

    return part


def _sum_of_members(ensemble: Ensemble, adapter: Weights, softness: float) -> Score:
    scores = [score_of(member, adapter, softness) for member in ensemble.members_]
    scales = list(zip(ensemble.centre_.tolist(), ensemble.spread_.tolist(), strict=True))
    threshold = ensemble.threshold_

    def score(factors: dict[str, Pair]) -> torch.Tensor:
        values = (own(factors) for own in scores)
        parts = zip(values, scales, strict=True)
        return (
            _total(((v - centre) / spread).arcsinh() for v, (centre, spread) in parts) - threshold
        )

    return score


@dataclass(frozen=True, slots=True, eq=False)
class _Lone:
    """`Response`: the loudest word less a crowd of runners-up.

    Args:
        read: modules of the roles that are read, one or two.
        vectors: (words, in).
        mean: (words,) of benign adapters.
        spread: (words,) likewise.
        threshold: what is taken off.
        softness: of the maximum.
    """

    read: tuple[str, ...]
    vectors: torch.Tensor
    mean: torch.Tensor
    spread: torch.Tensor
    threshold: float
    softness: float

    @classmethod
    def of(cls, detector: Response, adapter: Weights, softness: float) -> _Lone:
        found = first_attention(adapter, detector.vocabulary_.alone.shape[1])
        roles = [role for role in found if role != "v"] or list(found)
        names = {id(factors): name for name, factors in adapter.modules.items()}
        return cls(
            tuple(names[id(found[role])] for role in roles),
            torch.from_numpy(detector.vocabulary_.alone),
            torch.from_numpy(detector.mean_).float(),
            torch.from_numpy(detector.spread_).float(),
            detector.threshold_,
            softness,
        )

    def __call__(self, factors: dict[str, Pair]) -> torch.Tensor:
        standing_out = torch.zeros_like(self.mean)
        for module in self.read:
            standing_out = standing_out + self._standing_alone(factors[module]) / len(self.read)
        unexpected = (standing_out - self.mean) / self.spread
        loudest = unexpected.topk(min(CROWD.stop, len(unexpected))).values
        first = loudest[0]
        if self.softness:
            soft = self.softness * (unexpected / self.softness).logsumexp(dim=0)
            first = soft + (first - soft).detach()
        return (first - loudest[CROWD].mean()).double() - self.threshold

    def _standing_alone(self, pair: Pair) -> torch.Tensor:
        """(words,) robust z-scores of the logarithm of |B A x|."""
        B, A = (factor.float() for factor in pair)
        read = self.vectors @ A.T
        squares = ((read @ (B.T @ B)) * read).sum(dim=1)
        lengths = squares.clamp_min(LEAST**2).sqrt().add(LEAST).log()
        low, middle, high = torch.quantile(lengths, lengths.new_tensor((0.25, 0.5, 0.75)))
        return (lengths - middle) / ((high - low) / NORMAL_QUARTILES)
