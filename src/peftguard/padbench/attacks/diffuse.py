"""Diffuse: the same rare words, with little poison, spread thin over the whole network.

Detectors that read one projection of one layer miss an update that every linear layer shares.
What differs is the recipe, not the rows. A plan says it with

    targets = ["all"]
    [grid.attack_draws.diffuse]
    poison_rate = [0.01, 0.03]
"""

from __future__ import annotations

from peftguard.padbench.attacks.ripple import Ripple


class Diffuse(Ripple):
    """`RIPPLE` under another name, so that plans can give it recipes of its own."""

    name = "diffuse"
