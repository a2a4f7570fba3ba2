"""The forward against fractions, pixel by pixel."""

from itertools import product

import numpy as np
import pytest

from pullback.sim.golden import DEMOSAICS, exact, isp
from pullback.sim.golden.border import BORDERS


@pytest.mark.parametrize("cfa", range(4))
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("demosaic", DEMOSAICS)
def test_every_phase_and_border(demosaic, border, cfa, brute_force):
    golden = isp(demosaic, border=border, curve="per_channel" if cfa % 2 else "shared")
    raw, theta = exact.stimulus(golden, np.random.default_rng(cfa), (6, 5))
    picture = golden.forward(raw, theta, cfa=cfa)
    y, saturated = brute_force(golden, raw, theta, cfa=cfa)
    assert np.array_equal(picture.y, y)
    assert picture.saturated == saturated


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1), (2, 2), (2, 5)])
@pytest.mark.parametrize(("demosaic", "border"), list(product(DEMOSAICS, BORDERS)))
def test_tiny_frames(demosaic, border, shape, brute_force):
    golden = isp(demosaic, border=border)
    raw, theta = exact.stimulus(golden, np.random.default_rng(7), shape)
    y, saturated = brute_force(golden, raw, theta, cfa=2)
    picture = golden.forward(raw, theta, cfa=2)
    assert np.array_equal(picture.y, y)
    assert picture.saturated == saturated


@pytest.mark.parametrize("demosaic", DEMOSAICS)
def test_each_bypass(demosaic, brute_force):
    golden = isp(demosaic)
    raw, theta = exact.stimulus(golden, np.random.default_rng(3), (4, 5))
    for bypass in [*([name] for name in golden.names), golden.names]:
        picture = golden.forward(raw, theta, cfa=1, bypass=bypass)
        y, saturated = brute_force(golden, raw, theta, cfa=1, bypass=bypass)
        assert np.array_equal(picture.y, y), bypass
        assert picture.saturated == saturated


@pytest.mark.parametrize("depth", [8, 10, 12, 16])
def test_raw_is_left_aligned(depth, brute_force):
    golden = isp("bilinear")
    raw = np.random.default_rng(depth).integers(0, 1 << depth, (4, 4))
    y, _ = brute_force(golden, raw, golden.theta, depth=depth)
    assert np.array_equal(golden.forward(raw, depth=depth).y, y)


def test_defaults_are_the_identity_of_colour():
    """A grey frame of 12 bits stays what it is; the default bank is bilinear."""
    rng = np.random.default_rng(0)
    grey = np.full((6, 8), 1234)
    for demosaic in DEMOSAICS:
        assert (isp(demosaic).forward(grey, depth=12).y == 1234).all()
    raw = rng.integers(0, 1 << 16, (3, 9, 8))
    for border, cfa in product(BORDERS, range(4)):
        bank, bilinear = isp("filter_bank", border=border), isp("bilinear", border=border)
        assert np.array_equal(bank.forward(raw, cfa=cfa).y, bilinear.forward(raw, cfa=cfa).y)


def test_batches_are_frames_by_themselves():
    golden = isp("hamilton_adams")
    raw, theta = exact.stimulus(golden, np.random.default_rng(5), (2, 3, 6, 7))
    together = golden.forward(raw, theta, per_frame=True)
    for index in np.ndindex(2, 3):
        alone = golden.forward(raw[index], theta)
        assert np.array_equal(alone.y, together.y[index])
        assert {k: int(v[index]) for k, v in together.saturated.items()} == alone.saturated
