"""The array's unit as a fast callable: what it brings back, what stays in its memories, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from pullback.rtl.systolic import tiler
from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.descriptor import Memory
from pullback.rtl.systolic.tiler import Matrix
from pullback.sim import array_model, toolchain
from pullback.sim.array_model import ArrayModel, packed, unpacked
from pullback.sim.golden import matmul
from pullback.sim.golden.requantise import Requantisation, requantise
from pullback.sim.model import CoreError, StuckError

BUILD = UnitBuild(array=ArrayBuild(rows=4, columns=3), memory=1024, sums=256, masks=64, programme=128)


@pytest.fixture(scope="module")
def model() -> ArrayModel:
    return ArrayModel(BUILD, optimise="quick")


def test_packing():
    rng = np.random.default_rng(0)
    values, marks = rng.integers(-128, 128, (5, 9)), rng.integers(0, 4, 5)
    beats = packed([(marks, 2), (values, 8)], 3)
    assert beats.shape == (5, 3)
    for beat, mark, row in zip(beats, marks, values, strict=True):
        number = sum(int(word) << 32 * k for k, word in enumerate(beat))
        want = int(mark) | sum((int(v) & 255) << (2 + 8 * k) for k, v in enumerate(row))
        assert number == want
    wide = rng.integers(-(1 << 31), 1 << 31, (4, 3))
    np.testing.assert_array_equal(unpacked(packed([(wide, 32)], 3), 3, 32), wide)


def test_a_product_and_what_it_counts(model):
    rng = np.random.default_rng(1)
    xs, ws = rng.integers(-128, 128, (17, 9)), rng.integers(-128, 128, (9, 7))
    x, w, o = Matrix(2, 17, 9, 11), Matrix(0, 9, 7, 7), Matrix(300, 17, 7, 8)
    how = {"shift": 8, "top": 127}
    loads = [(Memory.ACTIVATIONS, x, xs), (Memory.WEIGHTS, w, ws)]
    jobs = [tiler.y(BUILD, x, w, o, how=how), {**tiler.store(BUILD, Memory.ACTIVATIONS, o), "fence": 1}]
    run = model.run(jobs, loads=loads, stored=17 * 2)
    want, branches = requantise(matmul.y(xs, ws), Requantisation(shift=8))
    np.testing.assert_array_equal(run.stored.reshape(17, -1)[:, :7], want)
    assert run.counts["row"] == 3 * 3 * 17 and run.counts["result"] == 3 * 17
    assert run.clipped == (branches == 0).any() and not run.overflow
    assert run.counts["busy"] <= run.cycles < 400
    # Memories keep what they hold: the same programme without loads gives the same.
    again = model.run(jobs, stored=17 * 2)
    np.testing.assert_array_equal(again.stored, run.stored)
    assert (again.cycles, again.counts) == (run.cycles, run.counts)


def test_what_is_wrong_is_said_and_the_unit_goes_on(model):
    fill, emit = tiler.fill(BUILD, 0, 2), tiler.emit(BUILD, 0, 2)
    with pytest.raises(ValueError, match="a programme of no jobs"):
        model.run([])
    with pytest.raises(ValueError, match=r"9 jobs have \d+ words; the unit holds 128, so run them in parts"):
        model.run([fill] * 9)
    with pytest.raises(ValueError, match=r"values of \(2, 2\) for a matrix of \(2, 3\)"):
        model.run([emit], loads=[(Memory.WEIGHTS, Matrix(0, 2, 3, 3), np.zeros((2, 2), int))])
    with pytest.raises(ValueError, match="what is loaded lies in 4094 to 4099; the memory has 4096"):
        model.run([emit], loads=[(Memory.WEIGHTS, Matrix(4094, 2, 3, 3), np.zeros((2, 3), int))])
    with pytest.raises(StuckError, match=r"nothing happened .* filled 1 of 1"):
        model.run([fill], fills=np.ones((1, 3), int))
    with pytest.raises(CoreError, match=r"more rows leave than were announced: .* emitted 1 of 1"):
        model.run([emit], emitted=1)
    rows = np.array([[1, -2, 3], [(1 << 31) - 1, -(1 << 31), 0]])
    run = model.run([fill, emit], fills=rows, emitted=2)
    np.testing.assert_array_equal(run.emitted, rows)


def test_random_programmes_equal_those_of_another_instance(model):
    """Instances share nothing but the library."""
    other = ArrayModel(BUILD, optimise="quick")
    rng = np.random.default_rng(2)
    x, dy = Matrix(0, 30, 5, 5), Matrix(0, 30, 4, 4)
    total = np.zeros((5, 4), int)
    for k in range(3):
        xs, dys = rng.integers(-128, 128, (30, 5)), rng.integers(-128, 128, (30, 4))
        model.run(
            [tiler.dw(BUILD, x, dy, start=5, add=k > 0)],
            loads=[(Memory.ACTIVATIONS, x, xs), (Memory.COTANGENTS, dy, dys)],
        )
        other.run([tiler.dw(BUILD, x, dy, start=5)])
        total += matmul.dw(xs, dys)
    run = model.run([tiler.emit(BUILD, 5, 16)], emitted=16)
    tiles = run.emitted.reshape(2, 8, 3).transpose(1, 0, 2).reshape(8, 6)[:5, :4]
    np.testing.assert_array_equal(tiles, total)


def test_a_missing_compiler_is_told_before_the_unit_is_elaborated(monkeypatch):
    def missing():
        raise toolchain.ToolMissing("g++ is not on PATH")

    monkeypatch.setattr(toolchain, "compiler", missing)
    monkeypatch.setattr(
        array_model, "generated", lambda *arguments, **options: pytest.fail("generated first")
    )
    with pytest.raises(toolchain.ToolMissing, match="not on PATH"):
        ArrayModel(UnitBuild())
