"""Integer products: the simulated array equals numpy to the bit, in parts where its memories are small."""

from __future__ import annotations

import numpy as np
import pytest

from pullback.errors import UsageError
from pullback.products import GoldenProducts, RtlProducts, open_products
from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.convolution import Taps
from pullback.sim.golden.requantise import Requantisation

SMALL = UnitBuild(array=ArrayBuild(rows=4, columns=3), memory=256, sums=128, masks=128, programme=1024)


@pytest.fixture(scope="module")
def rtl() -> RtlProducts:
    return RtlProducts(SMALL)


def same(rtl: RtlProducts, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, taps: Taps | None) -> None:
    golden = GoldenProducts()
    rng = np.random.default_rng(x.size)
    for how in (
        Requantisation(shift=9),
        Requantisation(shift=8, relu=True, top=90),
        Requantisation(shift=7, leak=2),
    ):
        codes, branches = golden.y(x, w, bias, how, taps)
        found = rtl.y(x, w, bias, how, taps)
        np.testing.assert_array_equal(found[0], codes)
        np.testing.assert_array_equal(found[1], branches)
    dy = rng.integers(-128, 128, codes.shape)
    np.testing.assert_array_equal(rtl.dx(dy, w, x.shape, taps), golden.dx(dy, w, x.shape, taps))
    for found, want in zip(rtl.dw(x, dy, taps), golden.dw(x, dy, taps), strict=True):
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize(
    ("m", "k", "n", "biased"),
    [(1, 1, 1, True), (50, 9, 7, True), (200, 5, 13, False), (600, 3, 2, True), (9, 30, 30, False)],
)
def test_matrices(rtl, m, k, n, biased):
    rng = np.random.default_rng(m)
    x, w = rng.integers(-128, 128, (m, k)), rng.integers(-128, 128, (k, n))
    same(rtl, x, w, rng.integers(-20000, 20000, n) if biased else None, None)


@pytest.mark.parametrize(
    ("shape", "outputs", "taps"),
    [
        ((5, 6, 5, 3), 4, Taps(height=3, width=3, padding=1)),
        ((3, 7, 7, 2), 3, Taps(height=3, width=3, padding=1, stride=2)),
        ((2, 7, 6, 1), 5, Taps(height=2, width=3, dilation=2)),
        ((3, 5, 5, 5), 5, Taps(height=3, width=3, padding=1, depthwise=True)),
    ],
)
def test_convolutions(rtl, shape, outputs, taps):
    rng = np.random.default_rng(outputs)
    x = rng.integers(-128, 128, shape)
    w = rng.integers(-128, 128, (taps.height, taps.width, shape[3], outputs)[: 3 if taps.depthwise else 4])
    same(rtl, x, w, rng.integers(-20000, 20000, outputs), taps)


@pytest.mark.parametrize(
    ("shape", "taps"),
    [
        ((3, 4, 6, 5), Taps(height=2, width=2, stride=2)),
        ((2, 5, 7, 4), Taps(height=3, width=3, stride=2, padding=1)),
        ((1, 6, 6, 2), Taps(height=2, width=3, dilation=2)),
        ((2, 3, 4, 1), Taps(height=3, width=4)),
    ],
)
@pytest.mark.parametrize("values", [3, 256])
def test_max_pools(rtl, shape, taps, values):
    """Of few values there are ties."""
    rng = np.random.default_rng(values)
    x = rng.integers(-128, values - 128, shape)
    golden = GoldenProducts()
    codes, numbers = golden.max_pool(x, taps)
    for found, want in zip(rtl.max_pool(x, taps), (codes, numbers), strict=True):
        np.testing.assert_array_equal(found, want)
    dy = rng.integers(-128, 128, codes.shape)
    np.testing.assert_array_equal(
        rtl.max_pool_dx(dy, numbers, shape, taps), golden.max_pool_dx(dy, numbers, shape, taps)
    )


def test_sums_that_wrap(rtl):
    """Both say so, and the next product is right."""
    x, w, top = np.full((1, 4), 127), np.full((4, 1), 127), np.array([(1 << 31) - 1])
    for products in (GoldenProducts(), rtl):
        with pytest.raises(OverflowError, match="does not fit 32 bits"):
            products.y(x, w, top, Requantisation(), None)
        assert products.dx(np.ones((1, 1), int), w, (1, 4), None).tolist() == [[127] * 4]


def test_it_counts(rtl):
    cycles, macs = rtl.cycles, rtl.macs
    x, w = np.ones((40, 8), int), np.ones((8, 6), int)
    rtl.dx(np.ones((40, 6), int), w, (40, 8), None)
    assert rtl.macs - macs == 40 * 8 * 6
    assert 40 * 2 * 3 < rtl.cycles - cycles < 600
    assert x.size


def test_what_does_not_fit(rtl):
    with pytest.raises(
        UsageError,
        match="W takes 1600 operands; a memory of this unit holds 1024, so build it with memory=512",
    ):
        rtl.y(np.ones((2, 40), int), np.ones((40, 40), int), None, Requantisation(), None)
    with pytest.raises(UsageError, match=r"a picture of .* does not fit this unit: 1024 operands"):
        rtl.y(
            np.ones((1, 40, 40, 1), int),
            np.ones((1, 1, 1, 1), int),
            None,
            Requantisation(),
            Taps(height=1, width=1),
        )
    with pytest.raises(UsageError, match="backend 'tpu' is unknown; choose golden or rtl"):
        open_products("tpu")
    with pytest.raises(ValueError, match="a unit of 16-bit operands"):
        RtlProducts(UnitBuild(array=ArrayBuild(operand=16, accumulator=40), total=48))
