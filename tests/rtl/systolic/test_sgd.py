# amaranth: UnusedElaboratable=no
"""Gradients of biases, and steps of the optimiser on weights in place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pullback.rtl.systolic import convolution, tiler
from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.convolution import Picture
from pullback.rtl.systolic.descriptor import Beginning, Memory
from pullback.rtl.systolic.tiler import Matrix, tiled, untiled
from pullback.rtl.systolic.unit import EVENTS
from pullback.sim.bench.host import Host
from pullback.sim.bench.runner import SIMULATORS
from pullback.sim.bench.waves import unpack
from pullback.sim.golden import matmul, sgd
from pullback.sim.golden.requantise import Requantisation, requantise

LEAST, MOST = -(1 << 31), (1 << 31) - 1


def unit(rows: int, columns: int) -> UnitBuild:
    # As the convolutions' and the pools', so that it is compiled once.
    return UnitBuild(
        array=ArrayBuild(rows=rows, columns=columns), memory=4096, sums=512, masks=512, programme=4096
    )


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_add(simulator):
    """Random sums, the largest and the least, ties of rounding, every shift, added, taken off, and put."""
    build = unit(4, 3)
    rng = np.random.default_rng(5)
    host = Host(build)
    columns = build.array.columns
    shifts = [0, 1, 2, 7, 8, 15, 23, 30, 31]
    sums = rng.integers(-(1 << 29), 1 << 29, (16, columns))
    sums[0] = LEAST, MOST, -1
    sums[1] = 1, 0, -(1 << 7)
    sums[2:6] = rng.choice([-3, -2, -1, 1, 2, 3], (4, columns)) << 7  # ties of a shift by 8
    begin = rng.integers(-(1 << 20), 1 << 20, (16, columns))
    wanted = []
    host.fill(sums)
    host.run(tiler.fill(build, 0, 16))
    for shift in shifts:
        for minus, onto in ((False, Beginning.SUMS), (True, Beginning.SUMS), (False, Beginning.ZERO)):
            if shift == 0 and (minus or onto == Beginning.SUMS):
                continue  # has no opposite; wraps
            host.fill(begin)
            host.run(tiler.fill(build, 100, 16))
            host.run(tiler.add(build, 100, 0, 16, shift, minus=minus, begin=onto))
            host.want(tiler.emit(build, 100, 16), 16, fence=False)
            scaled = sgd.rounded(sums, shift)
            wanted.append((begin if onto == Beginning.SUMS else 0) + (-scaled if minus else scaled))
    for found, want in zip(
        host.play(simulator, seed=None if simulator == "icarus" else 2), wanted, strict=True
    ):
        np.testing.assert_array_equal(found, want)
    assert not host.seen["overflow"][-1]


def test_a_sum_that_wraps_is_flagged():
    build = unit(4, 3)
    host = Host(build)
    host.fill(np.array([[MOST, 0, 0]]))
    host.run(tiler.fill(build, 0, 1))
    host.run(tiler.add(build, 0, 0, 1, 1))
    host.want(tiler.emit(build, 0, 1), 1)
    (found,) = host.play()
    assert found[0, 0] == MOST + (1 << 30) - (1 << 32) and host.seen["overflow"][-1]


@pytest.mark.parametrize("rows", [1, 2, 40])
def test_cycles_of_add(rows):
    """A row in two clocks."""
    build = unit(4, 3)
    lengths = []
    for more in (0, 8):
        host = Host(build)
        host.run(tiler.add(build, 0, 100, rows + more, 3))
        host.play(watch=["counts"])
        counted = unpack(host.seen["counts"][-1] or 0, EVENTS.size + 2, 32, signed=False)
        lengths.append(counted[EVENTS.size])
    assert lengths[1] - lengths[0] == 2 * 8


@pytest.mark.parametrize(("rows", "columns"), [(4, 3), (3, 5)])
def test_bias_gradients(rows, columns):
    """Column sums of matrices and of pictures, one batch on top of another."""
    build = unit(rows, columns)
    rng = np.random.default_rng(rows)
    host = Host(build)
    host.load(Memory.ACTIVATIONS, Matrix(7, 1, 1, 1), np.ones((1, 1), int))
    m, n = 11, 2 * columns + 1
    dy, picture = Matrix(3, m, n, n + 2), Picture(1000, 2, 3, 4, columns + 1, frame=1)
    dys, pictures = rng.integers(-128, 128, (m, n)), rng.integers(-128, 128, (2, 3, 4, columns + 1))
    host.load(Memory.COTANGENTS, dy, dys)
    host.load_pictures(Memory.COTANGENTS, picture, pictures)
    host.run(tiler.db(build, 7, dy, start=10))
    host.run(tiler.db(build, 7, dy, start=10, add=True))
    for job in convolution.db(build, 7, picture, start=100):
        host.run(job)
    host.want(tiler.emit(build, 10, 3 * rows), 3 * rows)
    host.want(tiler.emit(build, 100, 2 * rows), 2 * rows)
    of_matrix, of_pictures = host.play()
    np.testing.assert_array_equal(of_matrix[::rows].reshape(-1)[:n], 2 * dys.sum(0))
    np.testing.assert_array_equal(of_pictures[::rows].reshape(-1)[: columns + 1], pictures.sum((0, 1, 2)))
    assert not np.delete(of_matrix, np.s_[::rows], 0).any()


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_weights_learn_in_place(simulator):
    """Steps of a layer with nothing leaving in between: product, gradient, optimiser, codes of the new weights."""
    build = unit(4, 3)
    rng = np.random.default_rng(11)
    host = Host(build)
    m, k, n = 9, 6, 5
    steps = 3
    x, dy, w, o = Matrix(0, m, k, k), Matrix(2, m, n, n), Matrix(5, k, n, n), Matrix(200, m, n, n)
    xs, dys = rng.integers(-128, 128, (m, k)), rng.integers(-128, 128, (m, n))
    masters = rng.integers(-(1 << 24), 1 << 24, (k, n))
    momenta = rng.integers(-(1 << 20), 1 << 20, (k, n))
    rows = 2 * 2 * build.array.rows
    at = {"w": 0, "v": 100, "g": 200}
    knobs = {"damping": 3, "gain": 2, "rate": 1}
    host.load(Memory.ACTIVATIONS, x, xs)
    host.load(Memory.COTANGENTS, dy, dys)
    for name, values in (("w", masters), ("v", momenta)):
        host.fill(tiled(build, values))
        host.run(tiler.fill(build, at[name], rows))
    narrowed = Requantisation(shift=18)
    wanted = []
    for _ in range(steps):
        host.run(tiler.narrow(build, at["w"], w, how={"shift": narrowed.shift}))
        host.run(tiler.y(build, x, w, o, how={"shift": 8}, sums={"start": 300}), fence=True)
        host.want(tiler.store(build, Memory.ACTIVATIONS, o), o)
        codes, _ = requantise(masters, narrowed)
        wanted.append(requantise(matmul.y(xs, codes), Requantisation(shift=8))[0])
        host.run(tiler.dw(build, x, dy, start=at["g"]))
        for job in tiler.sgd(build, at["w"], at["v"], at["g"], rows, **knobs):
            host.run(job)
        masters, momenta = sgd.step(masters, momenta, matmul.dw(xs, dys), **knobs)
    for name in ("w", "v"):
        host.want(tiler.emit(build, at[name], rows), rows)
    *outputs, w_, v_ = host.play(simulator, seed=None if simulator == "icarus" else 1)
    for found, want in zip(outputs, wanted, strict=True):
        np.testing.assert_array_equal(found, want)
    np.testing.assert_array_equal(untiled(build, w_, k, n), masters)
    np.testing.assert_array_equal(untiled(build, v_, k, n), momenta)
    assert len({want.tobytes() for want in wanted}) == steps
    assert not host.seen["overflow"][-1]


def test_golden_is_pytorchs_sgd():
    """Where nothing is rounded: float64, the same momentum and rate."""
    rng = np.random.default_rng(3)
    w, v = rng.integers(-1000, 1000, 20) << 30, np.zeros(20, np.int64)
    master = torch.tensor(w.astype(np.float64), requires_grad=True)
    optimiser = torch.optim.SGD([master], lr=2.0**-3, momentum=1 - 2.0**-2)
    for _ in range(4):
        g = rng.integers(-1000, 1000, 20) << 30
        w, v = sgd.step(w, v, g, damping=2, gain=0, rate=3)
        master.grad = torch.tensor(g.astype(np.float64))
        optimiser.step()
    np.testing.assert_array_equal(w.astype(np.float64), master.detach().numpy())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: tiler.add(b, 0, 3, 4, 1), "rows 3 to 6 are added to 0 to 3; give the same rows or others"),
        (lambda b: tiler.add(b, 0, 30, 4, 0, minus=True), "shift=0 of what is taken off; give at least 1"),
        (lambda b: tiler.add(b, 0, 510, 4, 1), "rows 510 to 513 of partial sums; there are 512"),
        (lambda b: tiler.add(b, 0, 0, 4, 32), "shift=32; a sum has 32 bits, so give 0 to 31"),
        (lambda b: tiler.add(b, 0, 0, 0, 1), "0 rows of partial sums; give at least 1"),
        (
            lambda b: tiler.narrow(b, 0, Matrix(16382, 1, 2, 2)),
            "the matrix in whole tiles lies in 16382 to 16389",
        ),
        (lambda b: tiler.db(b, 16384, Matrix(0, 2, 2, 2)), "the operand 1 lies in 16384"),
    ],
)
def test_bad_jobs(make, message):
    with pytest.raises(ValueError, match=message):
        make(unit(4, 3))
