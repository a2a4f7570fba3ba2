"""The golden convolution against PyTorch's in float64, which holds these integers exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pullback.sim.golden.convolution import Convolution


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "kernel", "size"),
    [
        (1, 0, 1, (1, 1), (1, 1)),
        (1, 1, 1, (3, 3), (5, 7)),
        (2, 1, 1, (3, 2), (8, 5)),
        (3, 0, 1, (2, 2), (9, 10)),
        (1, 3, 2, (3, 3), (6, 6)),
        (2, 2, 3, (2, 3), (9, 11)),
    ],
)
def test_equals_autograd(stride, padding, dilation, kernel, size, depthwise):
    rng = np.random.default_rng(stride + padding)
    inputs, outputs = 3, 3 if depthwise else 4
    x = rng.integers(-128, 128, (2, *size, inputs))
    w = rng.integers(-128, 128, (*kernel, inputs) if depthwise else (*kernel, inputs, outputs))
    golden = Convolution(stride=stride, padding=padding, dilation=dilation)
    y = golden.y(x, w)
    dy = rng.integers(-128, 128, y.shape)

    tx = torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float64, requires_grad=True)
    order = w[..., None].transpose(2, 3, 0, 1) if depthwise else w.transpose(3, 2, 0, 1)
    tw = torch.tensor(order, dtype=torch.float64, requires_grad=True)
    ty = torch.nn.functional.conv2d(
        tx, tw, stride=stride, padding=padding, dilation=dilation, groups=inputs if depthwise else 1
    )
    ty.backward(torch.tensor(dy.transpose(0, 3, 1, 2), dtype=torch.float64))
    assert tx.grad is not None and tw.grad is not None
    np.testing.assert_array_equal(y, ty.detach().numpy().transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(golden.dx(dy, w, x.shape), tx.grad.numpy().transpose(0, 2, 3, 1))
    found = golden.dw(x, dy, kernel, depthwise=depthwise)
    want = tw.grad.numpy()
    np.testing.assert_array_equal(
        found, want[:, 0].transpose(1, 2, 0) if depthwise else want.transpose(2, 3, 1, 0)
    )
