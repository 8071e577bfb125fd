"""Winograd's convolution against PyTorch's direct one in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from berg.features.winograd import WinogradConvolution


@pytest.mark.parametrize(("height", "width", "n_in", "n_out"), [(16, 16, 48, 32), (4, 12, 3, 5)])
def test_it_gives_what_a_direct_convolution_gives(height: int, width: int, n_in: int, n_out: int) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, height, width, n_in, generator=generator)
    weight = torch.randn(n_out, n_in, 5, 5, generator=generator)
    truth = functional.conv2d(maps.permute(0, 3, 1, 2).double(), weight.double(), padding=2).permute(0, 2, 3, 1)
    responses = WinogradConvolution(weight)(maps)
    assert responses.shape == truth.shape
    assert (responses - truth).abs().max() < 1e-4 * truth.std()


def test_it_is_differentiable() -> None:
    maps = torch.randn(1, 4, 4, 2, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weight = torch.ones(1, 2, 5, 5)
    WinogradConvolution(weight)(maps)[0, 0, 0, 0].backward()
    assert maps.grad is not None
    expected = torch.zeros(1, 4, 4, 2)
    expected[:, :3, :3] = 1  # the window around the corner
    torch.testing.assert_close(maps.grad, expected, atol=1e-4, rtol=0)
