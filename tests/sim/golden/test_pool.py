"""The equations of pools against PyTorch, in float64, by equality, ties and borders included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pullback.sim.golden.pool import MaxPool


@pytest.mark.parametrize(
    ("shape", "pool"),
    [
        ((2, 6, 8, 3), MaxPool(height=2, width=2, stride=2)),
        ((1, 7, 5, 2), MaxPool(height=3, width=3, stride=2, padding=1)),
        ((1, 7, 6, 1), MaxPool(height=3, width=2, stride=1)),
        ((2, 8, 9, 2), MaxPool(height=3, width=3, stride=1, padding=1, dilation=2)),
        ((1, 5, 5, 2), MaxPool(height=2, width=2, stride=3)),
        ((1, 1, 1, 4), MaxPool(height=1, width=1, stride=1)),
    ],
)
@pytest.mark.parametrize("values", [3, 256])
def test_like_pytorch(shape, pool, values):
    """Few values make ties, of which the first tap wins."""
    rng = np.random.default_rng(values)
    x = rng.integers(-128, -128 + values, shape)
    y, t = pool.y(x)
    dy = rng.integers(-128, 128, y.shape)
    tx = torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float64, requires_grad=True)
    ty = torch.nn.functional.max_pool2d(
        tx, (pool.height, pool.width), pool.stride, pool.padding, pool.dilation
    )
    ty.backward(torch.tensor(dy.transpose(0, 3, 1, 2), dtype=torch.float64))
    assert tx.grad is not None
    np.testing.assert_array_equal(y, ty.detach().numpy().transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(pool.dx(dy, t, shape), tx.grad.numpy().transpose(0, 2, 3, 1))
