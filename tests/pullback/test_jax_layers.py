"""Layers as JAX functions: values and gradients are those of the torch operators, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pullback
import pullback.jax
from pullback import UsageError

jax = pytest.importorskip("jax")


def compare(ours, theirs, shapes: tuple[tuple[int, ...], ...]) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = theirs(*tensors)
    ybar = rng.normal(size=tuple(y.shape)).astype(np.float32)
    y.backward(torch.tensor(ybar))
    for function in (ours, jax.jit(ours)):
        found, pull = jax.vjp(function, *arrays)
        np.testing.assert_array_equal(np.asarray(found), y.detach().numpy())
        for gradient, tensor in zip(pull(ybar), tensors, strict=True):
            np.testing.assert_array_equal(np.asarray(gradient), tensor.grad.numpy())


def test_linear():
    options = {"exponent": 4, "activation": "leaky_relu_4"}
    compare(
        lambda x, w, b: pullback.jax.linear(x, w, b, **options),
        lambda x, w, b: pullback.linear(x, w, b, **options),
        ((3, 5, 7), (4, 7), (4,)),
    )


@pytest.mark.parametrize("options", [{"padding": 1, "stride": 2}, {"groups": 3, "dilation": 2}])
def test_conv2d(options):
    options = {"exponent": 3, "activation": "relu", **options}
    compare(
        lambda x, w, b: pullback.jax.conv2d(x, w, b, **options),
        lambda x, w, b: pullback.conv2d(x, w, b, **options),
        ((2, 3, 8, 7), (3, 3 // options.get("groups", 1), 3, 2), (3,)),
    )


def test_max_pool2d():
    options = {"kernel": 3, "stride": 2, "padding": 1}
    compare(
        lambda x: pullback.jax.max_pool2d(x, **options),
        lambda x: pullback.max_pool2d(x, **options),
        ((2, 3, 8, 7),),
    )
    x = np.random.default_rng(1).normal(size=(4, 2, 1, 4, 4)).astype(np.float32)
    pool = lambda x: pullback.jax.max_pool2d(x, 2)  # noqa: E731
    np.testing.assert_array_equal(jax.vmap(pool)(x), np.stack([pool(each) for each in x]))
    with pytest.raises(RuntimeError, match="no second derivative"):
        jax.grad(lambda x: (jax.grad(lambda x: (pool(x) ** 2).sum())(x) ** 2).sum())(x[0])


def test_vmap_and_second_derivatives():
    x, w = np.ones((4, 2, 3), np.float32), np.ones((5, 3), np.float32)
    linear = lambda x: pullback.jax.linear(x, w, exponent=4)  # noqa: E731
    np.testing.assert_array_equal(jax.vmap(linear)(x), np.stack([linear(each) for each in x]))
    with pytest.raises(RuntimeError, match="no second derivative"):
        jax.grad(lambda x: jax.grad(lambda x: linear(x).sum())(x).sum())(x[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f.linear(np.ones((2, 3), np.float32), np.ones((4, 2), np.float32), exponent=0), "weight"),
        (lambda f: f.linear(np.ones((2, 3), np.float16), np.ones((4, 3), np.float16), exponent=0), "float16"),
        (
            lambda f: f.linear(
                np.ones((2, 3), np.float32), np.ones((4, 3), np.float32), exponent=0, activation="x"
            ),
            "activation 'x' is unknown",
        ),
        (
            lambda f: f.conv2d(
                np.ones((1, 4, 2, 2), np.float32), np.ones((4, 2, 2, 2), np.float32), exponent=0, groups=2
            ),
            "groups=2 of 4 channels",
        ),
        (lambda f: f.max_pool2d(np.ones((1, 1, 2, 2), np.float32), 3), "too small for windows of 3 x 3"),
        (lambda f: f.max_pool2d(np.ones((1, 1, 2, 2), np.int32), 2), "x has the dtype int32"),
        (lambda f: f.max_pool2d(np.ones((2, 2), np.float32), 2), r"x has the shape \(2, 2\)"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(UsageError, match=message):
        make(pullback.jax)
