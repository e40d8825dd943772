"""A toy benchmark on disk, detectors trained on it, and all exact symmetries."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import strategies as st
from tests.toys import toy_zoo, write_toy

from peftguard.adversary.evasion import Evasion
from peftguard.adversary.registry import EVASIONS
from peftguard.detectors.bundle import load_bundle, save_bundle
from peftguard.detectors.trained import TrainedDetector
from peftguard.detectors.training import Options, train
from peftguard.evaluation.zoo import Zoo

EXACT = [evasion for evasion in EVASIONS.values() if evasion.exact]
STRENGTHS = {
    "gauge": st.floats(0, 2),
    "pad": st.integers(0, 2),
    "split": st.floats(0.05, 20),
    "qr": st.just(1.0),
    "svd": st.just(1.0),
}
"""Strengths at which symmetries stay exact in single precision, at ranks that were trained on."""


@st.composite
def symmetries(draw: st.DrawFn) -> tuple[Evasion, float, int]:
    """An exact symmetry, its strength, a seed."""
    evasion = draw(st.sampled_from(EXACT))
    return evasion, float(draw(STRENGTHS[evasion.name])), draw(st.integers(0, 2**32 - 1))


@pytest.fixture(scope="session")
def zoo() -> Zoo:
    return toy_zoo(60, 30, n_duds=4)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory, zoo: Zoo) -> Path:
    """The benchmark's folder."""
    return write_toy(tmp_path_factory.mktemp("benchmark") / "toy", zoo)


@pytest.fixture(scope="session")
def detectors(tmp_path_factory: pytest.TempPathFactory, zoo: Zoo) -> dict[str, TrainedDetector]:
    """Trained, stored and read again, by the kind that they are of."""
    root = tmp_path_factory.mktemp("detectors")
    for kind in ("gram", "outputs", "linear", "spectral", "anomaly", "ensemble"):
        save_bundle(train(zoo, Options(kind)), root / kind)
    return {folder.name: load_bundle(folder) for folder in root.iterdir()}
