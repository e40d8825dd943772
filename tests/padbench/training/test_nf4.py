from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from peftguard.padbench.training.nf4 import LEVELS, round_to_nf4  # noqa: E402


def test_holds_sixteen_levels_a_block() -> None:
    weight = torch.randn(7, 96, generator=torch.Generator().manual_seed(0))
    rounded = round_to_nf4(weight)
    assert rounded.shape == weight.shape
    blocks = torch.nn.functional.pad(rounded.flatten(), (0, -rounded.numel() % 64)).view(-1, 64)
    assert all(len(block.unique()) <= 16 for block in blocks)
    torch.testing.assert_close(round_to_nf4(rounded), rounded)


def test_rounds_to_the_nearest() -> None:
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    held = torch.tensor(LEVELS) * weight.abs().amax(dim=1, keepdim=True)
    best = (weight[:, :, None] - held[:, None, :]).abs().amin(dim=2)
    torch.testing.assert_close((round_to_nf4(weight) - weight).abs(), best)


def test_zeros_stay() -> None:
    assert round_to_nf4(torch.zeros(2, 64)).abs().max() == 0


def test_equals_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(8, 128, generator=torch.Generator().manual_seed(2))
    packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    torch.testing.assert_close(round_to_nf4(weight), functional.dequantize_4bit(packed, state))
