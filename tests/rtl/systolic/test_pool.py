# amaranth: UnusedElaboratable=no
"""Pools on the array's unit: every option, forward and adjoint, between products and by themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pullback.rtl.systolic import convolution, pooling, tiler
from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.convolution import Picture, Taps
from pullback.rtl.systolic.descriptor import Branches, Memory
from pullback.rtl.systolic.tiler import Matrix
from pullback.sim.bench.host import Host
from pullback.sim.bench.runner import SIMULATORS
from pullback.sim.golden import matmul
from pullback.sim.golden.convolution import Convolution
from pullback.sim.golden.pool import MaxPool
from pullback.sim.golden.requantise import Requantisation, requantise, requantise_vjp

BUILD = UnitBuild(array=ArrayBuild(rows=4, columns=3), memory=4096, sums=512, masks=512, programme=4096)

# number, height, width, channels, windows
CASES = {
    "2x2": (2, 4, 6, 4, Taps(height=2, width=2, stride=2)),
    "2x2 odd": (1, 5, 7, 3, Taps(height=2, width=2, stride=2)),
    "3x3 stride 2": (2, 7, 6, 4, Taps(height=3, width=3, stride=2, padding=1)),
    "3x2 stride 1": (1, 5, 5, 2, Taps(height=3, width=2)),
    "dilation": (1, 8, 7, 5, Taps(height=3, width=3, padding=1, dilation=2)),
    "apart": (1, 6, 7, 2, Taps(height=2, width=2, stride=3)),
    "one tap": (1, 3, 2, 7, Taps(height=1, width=1)),
    "one pixel": (1, 1, 1, 1, Taps(height=3, width=3, padding=1)),
    "many taps": (1, 12, 13, 1, Taps(height=12, width=13)),
    "in parts": (3, 16, 16, 2, Taps(height=2, width=2, padding=1)),
}


def golden(taps: Taps) -> MaxPool:
    return MaxPool(
        height=taps.height, width=taps.width, stride=taps.stride, padding=taps.padding, dilation=taps.dilation
    )


def framed(values: np.ndarray, frame: int) -> np.ndarray:
    return np.pad(values, ((0, 0), (frame, frame), (frame, frame), (0, 0)))


def check(case: str, simulator: str, seed: int | None, values: int) -> None:
    """Codes of ``values`` different ones: of few there are ties."""
    number, height, width, channels, taps = CASES[case]
    rng = np.random.default_rng(len(case) + values)
    pool = golden(taps)
    high, wide = pool.size(height, taps.height), pool.size(width, taps.width)
    frame = max(taps.height, taps.width) * taps.dilation + taps.padding
    x = Picture(5, number, height, width, channels, frame=1)
    dy = Picture(x.at + x.size + 3, number, high, wide, channels, frame=frame)
    o = Picture(dy.at + dy.size + 1, number, high, wide, channels, frame=2)
    dx = Picture(dy.at + dy.size + 2, number, height, width, channels, frame=1)
    xs = rng.integers(-128, -128 + values, (number, height, width, channels))
    if case == "many taps":
        xs[:], xs[0, -1, -1] = -7, -6  # the last one, 155
    dys = rng.choice([-128, -1, 0, 1, 127], (number, high, wide, channels))

    host = Host(BUILD)
    # What stands around a picture does not count.
    around = np.full((number, height + 2, width + 2, channels), 127)
    around[:, 1:-1, 1:-1] = xs
    host.load(Memory.ACTIVATIONS, x.lines, around.reshape(-1, x.line))
    host.load(Memory.ACTIVATIONS, dy.lines, np.zeros((dy.lines.rows, dy.line), int))
    host.load_pictures(Memory.ACTIVATIONS, o)
    host.load_pictures(Memory.COTANGENTS, dy, dys)
    host.load_pictures(Memory.COTANGENTS, dx)
    how = Requantisation(shift=1)
    for job in (
        *pooling.largest(BUILD, taps, x, o),
        *pooling.largest(BUILD, taps, x, dy, argmax=True),
    ):
        host.run(job.fields)
    for k, job in enumerate(pooling.route(BUILD, taps, dy, dx, how={"shift": 1}, sums={"start": 100})):
        host.run(job.fields, fence=k == 0)
    host.want(tiler.store(BUILD, Memory.ACTIVATIONS, o.lines), o.lines)
    host.want(tiler.store(BUILD, Memory.ACTIVATIONS, dy.lines), dy.lines)
    host.want(tiler.store(BUILD, Memory.COTANGENTS, dx.lines), dx.lines)
    y_, t_, dx_ = host.play(simulator, seed=seed)

    y, t = pool.y(xs)
    np.testing.assert_array_equal(y_.reshape(framed(y, 2).shape), framed(y, 2))
    # Numbers beyond the largest code are codes below zero.
    numbers = framed(np.where(t < 128, t, t - 256), frame)
    np.testing.assert_array_equal(t_.reshape(numbers.shape), numbers)
    want = framed(requantise(pool.dx(dys, t, xs.shape), how)[0], 1)
    np.testing.assert_array_equal(dx_.reshape(want.shape), want)


@pytest.mark.parametrize(
    ("case", "simulator"),
    [
        pytest.param(
            case,
            simulator,
            marks=pytest.mark.slow
            if case == "in parts" or (simulator == "verilator" and case != "2x2")
            else [],
        )
        for simulator in SIMULATORS
        for case in CASES
    ],
)
def test_pool(case, simulator):
    check(case, simulator, None if simulator == "icarus" else 1, 3 if len(case) % 2 else 256)


@pytest.mark.parametrize("simulator", ["icarus", pytest.param("verilator", marks=pytest.mark.slow)])
def test_between_convolutions(simulator):
    """Convolution, ReLU, pool, linear, and back, with a fence between steps; ROUTE takes the branches of the ReLU."""
    taps, window = Taps(height=3, width=3, padding=1), Taps(height=2, width=2, stride=2)
    number, height, width, inputs, outputs, classes = 2, 4, 6, 2, 4, 5
    rng = np.random.default_rng(7)
    xs = rng.integers(-128, 128, (number, height, width, inputs))
    ws = rng.integers(-128, 128, (3, 3, inputs, outputs))
    us = rng.integers(-128, 128, (2 * 3 * outputs, classes))
    dos = rng.integers(-128, 128, (number, classes))
    x = Picture(2, number, height, width, inputs, frame=1)
    h = Picture(400, number, height, width, outputs)
    p = Picture(800, number, 2, 3, outputs)
    o = Matrix(1000, number, classes, classes)
    flat = Matrix(p.at, number, 2 * 3 * outputs, 2 * 3 * outputs)
    w, u = taps.matrix(BUILD, 0, inputs, outputs), Matrix(500, 2 * 3 * outputs, classes, classes)
    # dP stands where the numbers of the taps do.
    do, dp, dh = Matrix(0, number, classes, classes), Picture(1200, number, 2, 3, outputs), h
    host = Host(BUILD)
    host.load_pictures(Memory.ACTIVATIONS, x, xs)
    host.load(Memory.WEIGHTS, w, convolution.weights(BUILD, taps, ws))
    host.load(Memory.WEIGHTS, u, us)
    host.load(Memory.COTANGENTS, do, dos)
    relu, plain = Requantisation(shift=8, relu=True), Requantisation(shift=9)
    kept = {"branches": 0}
    sums = {"start": 300}
    jobs = [
        convolution.y(
            BUILD, taps, x, w, h, how={"shift": 8, "relu": 1}, sums=sums, use=Branches.NOTE, **kept
        ),
        pooling.largest(BUILD, window, h, p),
        pooling.largest(BUILD, window, h, dp, argmax=True),
        [tiler.y(BUILD, flat, u, o, how={"shift": 9}, sums=sums)],
        [tiler.dx(BUILD, do, u, replace(flat, at=dp.at), how={"shift": 9}, sums=sums)],
        pooling.route(BUILD, window, dp, dh, how={"relu": 1}, sums=sums, use=Branches.TAKE, **kept),
        [*convolution.dw(BUILD, taps, x, dh)],
    ]
    for several in jobs:
        for k, job in enumerate(several):
            host.run(job if isinstance(job, dict) else job.fields, fence=k == 0)
    host.want(tiler.store(BUILD, Memory.ACTIVATIONS, o), o)
    host.want(tiler.store(BUILD, Memory.COTANGENTS, dh.lines), dh.lines)
    rest = jobs[-1][0]["result"]["rest"]
    rows = (rest[0] + 1) * (rest[3] + 1) * (rest[4] + 1)
    host.want(tiler.emit(BUILD, 0, rows), rows)
    o_, dh_, dw_ = host.play(simulator, seed=3)

    conv, pool = Convolution(padding=1), golden(window)
    hs, branches = requantise(conv.y(xs, ws), relu)
    ps, t = pool.y(hs)
    np.testing.assert_array_equal(o_, requantise(matmul.y(ps.reshape(number, -1), us), plain)[0])
    dps, _ = requantise(matmul.dx(dos, us), plain)
    dhs = requantise_vjp(pool.dx(dps.reshape(ps.shape), t, hs.shape), branches, Requantisation(relu=True))
    np.testing.assert_array_equal(dh_.reshape(dhs.shape), dhs)
    np.testing.assert_array_equal(
        convolution.gradient(BUILD, taps, dw_, inputs, outputs), conv.dw(xs, dhs, (3, 3))
    )
    assert (dhs != 0).any() and (branches == 0).any()


@pytest.mark.parametrize(
    ("taps", "x", "o", "message"),
    [
        (
            Taps(height=2, width=2, stride=2),
            Picture(0, 1, 4, 4, 3),
            Picture(0, 1, 2, 3, 3),
            "windows of 2 x 2 make 2 x 2 x 3; the result has 1 of 2 x 3 x 3",
        ),
        (
            Taps(height=17, width=16),
            Picture(0, 1, 17, 16, 1),
            Picture(0, 1, 1, 1, 1),
            "has 272 taps; codes of 8 bits number 256",
        ),
        (
            Taps(height=2, width=1, padding=2),
            Picture(0, 1, 3, 3, 1),
            Picture(0, 1, 6, 7, 1),
            "the window of line 0, column 0 has no tap in the picture of 3 x 3",
        ),
        (
            Taps(height=2, width=2),
            Picture(0, 1, 200, 200, 1),
            Picture(0, 1, 199, 199, 1),
            "the memory has 16384 operands",
        ),
    ],
)
def test_bad_windows(taps, x, o, message):
    with pytest.raises(ValueError, match=message):
        pooling.largest(BUILD, taps, x, o)


def test_bad_frame():
    with pytest.raises(
        ValueError, match="the cotangent has a frame of 0 pixels; this convolution reads 1 beyond it"
    ):
        pooling.route(BUILD, Taps(height=2, width=2), Picture(0, 1, 3, 3, 1), Picture(0, 1, 4, 4, 1))
