# amaranth: UnusedElaboratable=no
"""The array: three products to the bit, in exactly the clocks that its docstring promises."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pullback.rtl.systolic.array import SystolicArray
from pullback.rtl.systolic.build import ArrayBuild
from pullback.sim.bench.array import Tile, Waves, random_tile, schedule
from pullback.sim.bench.runner import SIMULATORS
from pullback.sim.bench.waves import play, unpack
from pullback.sim.generated import generated
from pullback.sim.golden.matmul import PRODUCTS

BUILDS = {
    "4x7": ArrayBuild(rows=4, columns=7),
    "5x3 in bands of two": ArrayBuild(rows=5, columns=3, band=2),
    "3x3 of 18 bits": ArrayBuild(rows=3, columns=3, operand=18, accumulator=40),
    "1x1": ArrayBuild(rows=1, columns=1),
    "1x4": ArrayBuild(rows=1, columns=4),
    "4x1": ArrayBuild(rows=4, columns=1),
    "3x6 packed": ArrayBuild(rows=3, columns=6, packed=True),
    "5x4 packed in bands of two": ArrayBuild(rows=5, columns=4, band=2, packed=True),
    "1x2 packed": ArrayBuild(rows=1, columns=2, packed=True),
    "2x4 of 3 bits packed": ArrayBuild(rows=2, columns=4, operand=3, accumulator=10, packed=True),
}


def wrong(build: ArrayBuild, waves: Waves, simulator: str, rng: np.random.Generator) -> list[int]:
    """Clocks at whose end other results stand than should. Every row of results is looked at."""
    sources, _ = generated(f"array {build}", lambda: SystolicArray(build))
    shown = play(sources, waves.inputs(rng), ["o"], simulator)["o"]
    assert len(waves.results) > 0

    def right(bits: int | None, row: np.ndarray) -> bool:
        return bits is not None and unpack(bits, build.columns, build.accumulator) == row.tolist()

    return [k for k, row in sorted(waves.results.items()) if not right(shown[k], row)]


def interleaved(rng: np.random.Generator, build: ArrayBuild) -> list[Tile]:
    """Every product after every other one, of any number of rows, of random and of extreme operands."""
    most = max(build.rows, build.columns)
    order = [each for pair in product(PRODUCTS, PRODUCTS) for each in pair] + list(
        rng.choice(list(PRODUCTS), 12)
    )
    counts = [most if k % 3 == 0 else int(rng.integers(1, 2 * most + 2)) for k in range(len(order))]
    return [
        random_tile(rng, build, each, rows, extreme=k % 4 == 0)
        for k, (each, rows) in enumerate(zip(order, counts, strict=True))
    ]


@pytest.mark.parametrize(
    ("name", "simulator"),
    [
        *((name, "icarus") for name in BUILDS),
        *(
            pytest.param(
                name,
                "verilator",
                marks=[] if name in ("4x7", "5x3 in bands of two", "3x6 packed") else pytest.mark.slow,
            )
            for name in BUILDS
        ),
    ],
)
def test_products_interleaved(name, simulator):
    build, rng = BUILDS[name], np.random.default_rng(1)
    tiles, latency = interleaved(rng, build), SystolicArray(build).latency
    assert wrong(build, schedule(build, tiles, latency), simulator, rng) == []
    gaps = rng.integers(0, 4, len(tiles)).tolist()
    assert wrong(build, schedule(build, tiles, latency, gaps=gaps), simulator, rng) == []


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_largest_sums(simulator):
    """The depth that a build names fits whatever the operands are, on both sides."""
    build, rng = ArrayBuild(rows=2, columns=3, operand=4, accumulator=10), np.random.default_rng(2)
    assert build.depth == 7  # of products up to 64, in -512 to 511
    ones = np.full((build.depth, 3), -8)
    tiles = [Tile("dw", ones[:, :2], ones), Tile("dw", ones[:, :2], np.full_like(ones, 7))]
    assert tiles[0].result.max() == 448 and tiles[1].result.min() == -392
    assert wrong(build, schedule(build, tiles, SystolicArray(build).latency), simulator, rng) == []
    tiles = [Tile("dw", np.full((8, 2), -8), np.full((8, 3), -8))]  # 512: one product too many wraps
    waves = schedule(build, tiles, SystolicArray(build).latency)
    assert len(wrong(build, waves, simulator, rng)) == 2


@pytest.mark.parametrize("simulator", ["icarus", pytest.param("verilator", marks=pytest.mark.slow)])
def test_packed_products_are_exact(simulator):
    """Every operand times every pair of the extreme ones, 0 and their neighbours in both columns of a multiplier."""
    build, rng = ArrayBuild(rows=1, columns=2, packed=True), np.random.default_rng(7)
    some = (-128, -127, -1, 0, 1, 126, 127)
    every = np.arange(-128, 128)[:, None]
    tiles = [Tile("y", every, np.array([pair])) for pair in product(some, some)]
    assert wrong(build, schedule(build, tiles, SystolicArray(build).latency), simulator, rng) == []


@pytest.mark.parametrize("name", BUILDS)
def test_cycles(name):
    """The formulas of a bare array without and with bands: T tiles of M rows, first operand in to last result out."""
    build, rng = BUILDS[name], np.random.default_rng(3)
    rows, columns = build.rows, build.columns
    crossings = (rows - 1) // build.band if build.band else 0
    for count, height in product((1, 2, 5), (max(rows, columns), 2 * max(rows, columns) + 1)):
        inner = (
            (rows - 1) + (columns // 2 - 1) + crossings + 8
            if build.packed
            else (rows - 1) + (columns - 1) + crossings + 6
        )
        formulas = {
            "y": count * height + inner,
            "dx": count * height + inner,
            "dw": count * (height + 1) - 1 + rows + inner,
        }
        for each, cycles in formulas.items():
            tiles = [random_tile(rng, build, each, height) for _ in range(count)]
            waves = schedule(build, tiles, SystolicArray(build).latency)
            assert waves.cycles == cycles
            if count == 2 and height % 2:  # that the results are there then
                assert wrong(build, waves, "icarus", rng) == []


@pytest.mark.slow
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_twelve_by_thirteen(simulator):
    """48 x 48 x 52 on 12 x 13 in three bands: 799 cycles for 768 of rows."""
    build, rng = ArrayBuild(rows=12, columns=13, band=4), np.random.default_rng(4)
    latency = SystolicArray(build).latency
    for each, cycles in (("y", 799), ("dx", 799), ("dw", 16 * 49 - 1 + 12 + 31)):
        waves = schedule(build, [random_tile(rng, build, each, 48) for _ in range(16)], latency)
        assert waves.cycles == cycles
        assert wrong(build, waves, simulator, rng) == []
    tiles = interleaved(rng, build)
    assert wrong(build, schedule(build, tiles, latency), simulator, rng) == []


@pytest.mark.parametrize("name", ["4x7", pytest.param("3x6 packed", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("before", "after"),
    [pair for pair in product(PRODUCTS, PRODUCTS) if pair not in (("y", "y"), ("dx", "dx"))],
)
def test_distances_are_the_least(before, after, name):
    """One clock less and results are wrong, or h has two rows in a clock. Twice Y or twice dX cannot come closer: W has
    one port.
    """
    build, rng = BUILDS[name], np.random.default_rng(5)
    tiles = [random_tile(rng, build, before, 3), random_tile(rng, build, after, 9)]
    latency = SystolicArray(build).latency
    assert wrong(build, schedule(build, tiles, latency), "icarus", rng) == []
    try:
        closer = schedule(build, tiles, latency, gaps=[-1])
    except AssertionError as error:
        assert str(error).startswith("two rows at h in clock"), error
    else:
        assert wrong(build, closer, "icarus", rng) != []


def test_sums_of_a_drain_too_soon_are_lost():
    build, rng = BUILDS["4x7"], np.random.default_rng(6)
    short = Tile("dw", np.full((2, 4), 1), np.full((2, 7), 1))
    waves = schedule(build, [short, random_tile(rng, build, "dw", 4)], SystolicArray(build).latency)
    assert wrong(build, waves, "icarus", rng) != []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows=0; an array has 1 to 64 rows"),
        ({"columns": 65}, "columns=65; an array has 1 to 64 columns"),
        ({"operand": 1}, "operand=1; give 2 to 18 bits"),
        ({"operand": 19}, "operand=19; give 2 to 18 bits"),
        ({"band": 13}, "band=13; give 0 to 12"),
        ({"family": "tin"}, "family='tin'; choose one of generic, ecp5, gowin"),
        ({"packed": True}, "packed with columns=13, operand=8; give an even number of columns"),
        ({"packed": True, "columns": 12, "operand": 9}, "operand=9; .* at most 8 bits"),
        ({"accumulator": 49}, "accumulator=49; give at most 48 bits"),
        (
            {"accumulator": 18},
            "accumulator=18 bits hold 7 products of 8-bit operands.* adds 12; give at least 19",
        ),
        ({"accumulator": 0}, "accumulator=0 bits hold 0 products"),
    ],
)
def test_bad_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        ArrayBuild(**options)


def test_depth_is_the_most():
    """One product more could overflow."""
    for operand, accumulator in ((2, 4), (2, 24), (8, 24), (11, 24), (18, 36), (18, 48)):
        largest = (1 << (operand - 1)) ** 2
        depth = ArrayBuild(rows=1, operand=operand, accumulator=accumulator).depth
        assert depth * largest <= (1 << (accumulator - 1)) - 1 < (depth + 1) * largest
