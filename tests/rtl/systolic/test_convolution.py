# amaranth: UnusedElaboratable=no
"""Convolutions on the array's unit: every option, forward and both adjoints, against the golden equations."""

from __future__ import annotations

import numpy as np
import pytest

from pullback.rtl.systolic import convolution, tiler
from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.convolution import Picture, Taps
from pullback.rtl.systolic.descriptor import Memory
from pullback.sim.bench.host import Host
from pullback.sim.bench.runner import SIMULATORS
from pullback.sim.golden.convolution import Convolution
from pullback.sim.golden.requantise import Requantisation, requantise

BUILD = UnitBuild(array=ArrayBuild(rows=4, columns=3), memory=4096, sums=512, masks=512, programme=4096)

# number, height, width, inputs, outputs, taps
CASES = {
    "3x3": (2, 5, 6, 3, 4, Taps(height=3, width=3, padding=1)),
    "valid": (1, 5, 5, 2, 3, Taps(height=3, width=2)),
    "1x1": (2, 3, 4, 5, 7, Taps(height=1, width=1)),
    "stride": (2, 7, 6, 3, 4, Taps(height=3, width=3, padding=1, stride=2)),
    "stride 3": (1, 8, 7, 2, 3, Taps(height=2, width=2, stride=3)),
    "1x1 stride 2": (1, 5, 4, 2, 2, Taps(height=1, width=1, stride=2)),
    "dilation": (1, 7, 8, 3, 2, Taps(height=3, width=3, padding=2, dilation=2)),
    "dilation and stride": (1, 9, 8, 2, 2, Taps(height=3, width=3, padding=2, dilation=2, stride=2)),
    "wide padding": (1, 3, 3, 1, 1, Taps(height=2, width=2, padding=3)),
    "one pixel": (1, 1, 1, 4, 3, Taps(height=1, width=1)),
    "depthwise": (1, 5, 6, 7, 7, Taps(height=3, width=3, padding=1, depthwise=True)),
    "depthwise stride": (2, 6, 5, 3, 3, Taps(height=2, width=2, stride=2, depthwise=True)),
    "in parts": (3, 12, 12, 2, 2, Taps(height=3, width=3, padding=1)),
    "in parts of a picture": (1, 30, 30, 1, 2, Taps(height=3, width=3)),
}


def check(case: str, simulator: str, seed: int | None) -> None:
    number, height, width, inputs, outputs, taps = CASES[case]
    rng = np.random.default_rng(len(case))
    golden = Convolution(stride=taps.stride, padding=taps.padding, dilation=taps.dilation)
    high, wide = golden.size(height, taps.height), golden.size(width, taps.width)
    frame = max(taps.height, taps.width) * taps.dilation + taps.padding
    x = Picture(5, number, height, width, inputs, frame=taps.padding)
    dy = Picture(3, number, high, wide, outputs, frame=frame)
    o = Picture(x.at + x.size + 1, number, high, wide, outputs, frame=1)
    dx = Picture(dy.at + dy.size + 2, number, height, width, inputs)
    w = taps.matrix(BUILD, 7, inputs, outputs)

    xs = rng.integers(-128, 128, (number, height, width, inputs))
    dys = rng.integers(-128, 128, (number, high, wide, outputs))
    ws = rng.integers(-128, 128, (taps.height, taps.width, inputs, outputs)[: 3 if taps.depthwise else 4])
    host = Host(BUILD)
    host.load_pictures(Memory.ACTIVATIONS, x, xs)
    host.load_pictures(Memory.ACTIVATIONS, o)
    host.load_pictures(Memory.COTANGENTS, dy, dys)
    host.load_pictures(Memory.COTANGENTS, dx)
    host.load(Memory.WEIGHTS, w, convolution.weights(BUILD, taps, ws))
    how = Requantisation(shift=8, relu=True)
    fields = {"shift": how.shift, "relu": 1, "top": how.top}
    plain = {"shift": 7, "top": 127}
    gradients = convolution.dw(BUILD, taps, x, dy)
    jobs = [
        *(part.fields for part in convolution.y(BUILD, taps, x, w, o, how=fields, sums={"start": 256})),
        *gradients,
        *(part.fields for part in convolution.dx(BUILD, taps, dy, w, dx, how=plain, sums={"start": 256})),
    ]
    for job in jobs:
        host.run(job)
    rest = gradients[0]["result"]["rest"]
    rows = (rest[0] + 1) * (rest[3] + 1) * (rest[4] + 1)
    host.want(tiler.store(BUILD, Memory.ACTIVATIONS, o.lines), o.lines)
    host.want(tiler.store(BUILD, Memory.COTANGENTS, dx.lines), dx.lines)
    host.want(tiler.emit(BUILD, 0, rows), rows)
    y_, dx_, dw_ = host.play(simulator, seed=seed)

    want, _ = requantise(golden.y(xs, ws), how)
    framed = np.pad(want, ((0, 0), (1, 1), (1, 1), (0, 0)))
    np.testing.assert_array_equal(y_.reshape(framed.shape), framed)
    want, _ = requantise(golden.dx(dys, ws, xs.shape), Requantisation(shift=7))
    np.testing.assert_array_equal(dx_.reshape(want.shape), want)
    kernel = (taps.height, taps.width)
    want = golden.dw(xs, dys, kernel, depthwise=taps.depthwise)
    np.testing.assert_array_equal(convolution.gradient(BUILD, taps, dw_, inputs, outputs), want)


@pytest.mark.parametrize(
    ("case", "simulator"),
    [
        pytest.param(case, simulator, marks=pytest.mark.slow if case.startswith("in parts") else [])
        for simulator in SIMULATORS
        for case in CASES
    ],
)
def test_convolution(case, simulator):
    check(case, simulator, None if simulator == "icarus" else 1)
