"""Layers: exact where no rounding is, the same bits on both backends, and good citizens of PyTorch."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import library, nn

import pullback
from pullback import UsageError
from pullback.layers import ACTIVATIONS, Layer, exponent, find_pool, quantise
from pullback.nn import Conv2d, Linear, MaxPool2d, conv2d, convert, linear, max_pool2d
from pullback.products import GoldenProducts, RtlProducts
from pullback.rtl.systolic.build import ArrayBuild, UnitBuild

F = nn.functional


def small(*shape: int, seed: int, most: int = 2) -> torch.Tensor:
    """Integers so small that no sum needs more than eight bits."""
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.integers(-most, most + 1, shape), dtype=torch.float64)


@pytest.mark.parametrize("activation", ["none", "relu", "relu6", "leaky_relu_2"])
def test_linear_is_exact_where_nothing_is_rounded(activation):
    x, w, b = small(6, 7, seed=0), small(5, 7, seed=1), small(5, seed=2)
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    y = linear(leaves[0], leaves[1], leaves[2], exponent=1, activation=activation)
    own = [t.clone().requires_grad_() for t in (x, w, b)]
    act = {
        "none": lambda t: t,
        "relu": F.relu,
        "relu6": F.relu6,
        "leaky_relu_2": lambda t: F.leaky_relu(t, 0.5),
    }
    want = act[activation](F.linear(*own))
    assert torch.equal(y, want)
    ybar = small(6, 5, seed=3)
    # At 6 exactly ReLU6 has no derivative: PyTorch takes 0 there, the array what is below.
    ybar[want == 6.0] = 0.0
    y.backward(ybar)
    want.backward(ybar)
    for found, wanted in zip(leaves, own, strict=True):
        assert torch.equal(found.grad, wanted.grad)


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2}, {"groups": 3, "padding": 1}]
)
def test_conv2d_is_exact_where_nothing_is_rounded(options):
    groups = options.get("groups", 1)
    x, w, b = small(2, 3, 7, 6, seed=0, most=1), small(3, 3 // groups, 3, 3, seed=1, most=1), small(3, seed=2)
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    y = conv2d(*leaves, exponent=0, **options)
    own = [t.clone().requires_grad_() for t in (x, w, b)]
    want = F.conv2d(*own, **options)
    assert torch.equal(y, want)
    ybar = small(*y.shape, seed=3)
    y.backward(ybar)
    want.backward(ybar)
    for found, wanted in zip(leaves, own, strict=True):
        assert torch.equal(found.grad, wanted.grad)


def test_rounding_is_bounded():
    """y is off by half a code at most where operands are codes and none saturates."""
    rng = np.random.default_rng(0)
    x, w = (torch.tensor(rng.integers(-127, 128, s) / 128.0) for s in ((40, 9), (11, 9)))
    want = F.linear(x, w)
    y = linear(x, w, exponent=4)
    assert (want.abs() < 127 / 16).all()
    assert (y - want).abs().max() <= 0.5 / 16
    assert torch.equal(y * 16, torch.round(y * 16))


def test_exponents():
    for peak in (1.0, 0.9999, 126.4, 127.49, 127.5, 128.0, 3e-9, 2.0**30):
        e = exponent(np.array([peak, -peak / 3]))
        assert np.floor(np.ldexp(peak, e) + 0.5) <= 127
        assert np.floor(np.ldexp(peak, e + 1) + 0.5) > 127
    assert exponent(np.zeros(3)) == 0
    assert exponent(np.array([1e-30])) == 40  # the last one
    assert quantise(np.array([0.5, -0.5, 1.49, 200.0, -200.0]), 0).tolist() == [1, 0, 1, 127, -128]
    with pytest.raises(UsageError, match="NaN or infinity"):
        exponent(np.array([1.0, np.nan]))


def test_operators_are_good_citizens():
    x, w, b = (t.requires_grad_() for t in (small(4, 3, seed=0), small(2, 3, seed=1), small(2, seed=2)))
    layer = Layer(GoldenProducts(), None, ACTIVATIONS["relu"])
    pullback.nn._LAYERS[10**9] = layer
    library.opcheck(torch.ops.pullback.layer, (x, w.T.contiguous(), b, 2, 10**9))
    compiled = torch.compile(
        lambda x, w, b: linear(x, w, b, exponent=2, activation="relu"), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(x, w, b), linear(x, w, b, exponent=2, activation="relu"))
    y = linear(x, w, b, exponent=2)
    (xbar,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(xbar.sum(), w)


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3, padding=1),
        nn.LeakyReLU(0.125), nn.MaxPool2d(3, 2, padding=1), nn.Flatten(), nn.Linear(6 * 2 * 2, 10),
    )  # fmt: skip


def test_training_on_the_hardware_gives_the_same_bits():
    """A small network, a few steps: every weight after every step, on the simulated array and in numpy."""
    build = UnitBuild(
        array=ArrayBuild(rows=4, columns=4), memory=1 << 13, sums=1 << 11, masks=1 << 11, programme=1 << 12
    )
    rng = np.random.default_rng(0)
    pictures = torch.tensor(rng.random((3, 6, 1, 8, 8)), dtype=torch.float32)
    labels = torch.tensor(rng.integers(0, 10, (3, 6)))
    rtl = RtlProducts(build)
    models = [convert(network(1), backend=products) for products in (GoldenProducts(), rtl)]
    optimisers = [torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9) for model in models]
    first = [p.detach().clone() for p in models[0].parameters()]
    for x, target in zip(pictures, labels, strict=True):
        for model, optimiser in zip(models, optimisers, strict=True):
            optimiser.zero_grad()
            F.cross_entropy(model(x), target).backward()
            optimiser.step()
        for (name, golden), found in zip(
            models[0].state_dict().items(), models[1].state_dict().values(), strict=True
        ):
            assert torch.equal(golden, found), name
    assert all(not torch.equal(a, b) for a, b in zip(first, models[0].parameters(), strict=True))
    assert rtl.macs > 0 and rtl.cycles > 0


@pytest.mark.parametrize(
    ("kernel", "options"),
    [(2, {}), (3, {"stride": 2, "padding": 1}), ((2, 3), {"stride": 1}), (2, {"stride": 1, "dilation": 2})],
)
def test_pools_are_exact_where_nothing_is_rounded(kernel, options):
    """Values and cotangents that are codes: PyTorch's own pool, forward and back, by equality, ties included."""
    rng = np.random.default_rng(4)
    x = torch.tensor(rng.integers(-127, 128, (2, 3, 6, 7)) / 8.0, requires_grad=True)
    x.data[:, :, 2:4] = 0.5
    mine, theirs = (pool(x, kernel, **options) for pool in (pullback.max_pool2d, F.max_pool2d))
    assert torch.equal(mine, theirs)
    ybar = torch.tensor(rng.integers(-127, 128, mine.shape) / 32.0)
    grads = [torch.autograd.grad(y, x, ybar)[0] for y in (mine, theirs)]
    assert torch.equal(*grads)


def test_average_pools_are_exact_where_nothing_is_rounded():
    x = torch.tensor(np.random.default_rng(4).integers(-8, 8, (2, 3, 6, 8)) * 4.0, requires_grad=True)
    mine, theirs = pullback.AvgPool2d(2), nn.AvgPool2d(2)
    assert torch.equal(mine(x), theirs(x))
    ybar = torch.randint(-16, 16, (2, 3, 3, 4)).to(x)
    assert torch.equal(torch.autograd.grad(mine(x), x, ybar)[0], torch.autograd.grad(theirs(x), x, ybar)[0])


def test_pools_are_good_citizens():
    x = small(1, 2, 4, 4, seed=3).requires_grad_()
    pullback.nn._POOLS[10**9] = find_pool("golden", 2, 2, 2)
    library.opcheck(torch.ops.pullback.pool, (x.permute(0, 2, 3, 1).contiguous(), 10**9))
    compiled = torch.compile(lambda x: max_pool2d(x, 2), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), max_pool2d(x, 2))
    (xbar,) = torch.autograd.grad(max_pool2d(x, 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"no second derivative|does not require grad"):
        torch.autograd.grad(xbar.sum(), x)


def test_exponents_stay_in_evaluation_and_in_the_state():
    torch.manual_seed(0)
    layer = Linear(4, 3)
    layer(torch.ones(2, 4))
    kept = int(layer.exponent)
    assert kept != 0
    layer.eval()
    layer(torch.full((2, 4), 100.0))
    assert int(layer.exponent) == kept
    other = Linear(4, 3)
    other.load_state_dict(layer.state_dict())
    assert int(other.exponent) == kept


def test_convert_says_what_it_cannot():
    ours = convert(
        nn.Sequential(
            nn.Conv2d(3, 3, 3, groups=3), nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2)
        )
    )
    assert [type(layer) for layer in ours] == [Conv2d, MaxPool2d, nn.Flatten, Linear]
    assert ours(torch.rand(1, 3, 6, 6)).shape == (1, 2)
    model = nn.Sequential(
        nn.Sigmoid(),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.LeakyReLU(0.01),
        nn.Conv2d(2, 2, 3, padding="same"),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.MaxPool2d(2, return_indices=True),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d((2, 3)),
        nn.AvgPool2d(3, padding=1, count_include_pad=False),
        nn.AvgPool2d(3, divisor_override=2),
    )
    with pytest.raises(UsageError) as caught:
        convert(model)
    for words in (
        "0: Sigmoid",
        "groups=2; 1 or depthwise",
        "LeakyReLU",
        "padding='same'",
        "5: ReLU.*no layer of the array",
        "6: MaxPool2d.*return_indices=True; values only",
        "7: MaxPool2d.*ceil_mode=True; whole windows only",
        r"8: MaxPool2d.*stride=\(2, 3\); the same in both directions only",
        "9: AvgPool2d.*count_include_pad=False; zeros",
        "10: AvgPool2d.*divisor_override=2; the mean only",
    ):
        assert re.search(words, str(caught.value)), words


def ones(*shape: int, **options) -> torch.Tensor:
    return torch.ones(shape, **options)


X, W = ones(2, 3), ones(4, 3)
PICTURE, KERNEL = ones(1, 1, 2, 2), ones(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linear(X, ones(4, 2), exponent=0), r"x has the shape \(2, 3\) and weight \(4, 2\)"),
        (lambda: linear(X.half(), W, exponent=0), "x has the dtype torch.float16"),
        (lambda: linear(X, W.double(), exponent=0), "of torch.float32 and torch.float64"),
        (lambda: linear(ones(2, 3, device="meta"), W, exponent=0), "x is on meta"),
        (lambda: linear(X[:0], W, exponent=0), "not empty"),
        (lambda: linear(X, W, ones(3), exponent=0), r"b has the shape \(3,\); give \(4,\)"),
        (lambda: linear(X, W, exponent=41), "exponent 41 of y; give -40 to 40"),
        (lambda: linear(X, W, exponent=0, activation="gelu"), "activation 'gelu' is unknown"),
        (lambda: linear(X, W, exponent=0, backend="tpu"), "backend 'tpu' is unknown"),
        (lambda: linear(X * torch.inf, W, exponent=0), "NaN or infinity"),
        (lambda: conv2d(PICTURE, ones(1, 1, 3, 3), exponent=0), "smaller than the kernel"),
        (lambda: conv2d(PICTURE, KERNEL, exponent=0, stride=0), "stride=0; give at least 1"),
        (lambda: conv2d(ones(1, 4, 2, 2), ones(4, 2, 2, 2), exponent=0, groups=2), "groups=2 of 4 channels"),
        (lambda: conv2d(PICTURE[0], KERNEL, exponent=0), r"x has the shape \(1, 2, 2\)"),
        (lambda: Conv2d(4, 8, 3, groups=4), "groups=4 of 4 channels and 8 outputs"),
        (lambda: Linear(4, 8, activation="tanh"), "activation 'tanh' is unknown"),
        (lambda: max_pool2d(PICTURE, 3), "too small for windows of 3 x 3"),
        (lambda: max_pool2d(PICTURE, 2, padding=2), "padding=2 of windows of 2 x 2; give at most 1"),
        (lambda: max_pool2d(PICTURE, 2, stride=0), "stride=0; give at least 1"),
        (lambda: max_pool2d(PICTURE, (1, 2)), "without a stride"),
        (lambda: max_pool2d(PICTURE, 17), "at most 256"),
        (lambda: max_pool2d(PICTURE[0], 2), r"x has the shape \(1, 2, 2\)"),
        (lambda: max_pool2d(PICTURE[..., :1], 2, padding=1, dilation=2), "no tap in a picture of 2 x 1"),
        (lambda: max_pool2d(PICTURE * torch.nan, 2), "NaN or infinity"),
        (lambda: pullback.AvgPool2d((1, 2)), "without a stride"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(UsageError, match=message):
        make()
