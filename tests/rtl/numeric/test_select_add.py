# amaranth: UnusedElaboratable=no
"""SelectAdd: the sum of one value and the chosen one of two; the ECP5's carry chain equals the generic body."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path

import pytest
from amaranth.hdl import signed, unsigned

from pullback.gen.verilog import simulation_verilog
from pullback.rtl.numeric.select_add import SelectAdd
from pullback.sim.bench.waves import play

CELL = (Path(__file__).parents[3] / "sim" / "cells" / "ecp5_ccu2c.v").read_text()
SHAPES = [(24, signed(16)), (5, signed(5)), (1, signed(1)), (9, unsigned(4)), (40, signed(36))]

# The block's model on Verilator as well takes a build more of every size; it is the same model.
RUNS = [
    ("generic", "icarus"),
    ("generic", "verilator"),
    ("ecp5", "icarus"),
    pytest.param("ecp5", "verilator", marks=pytest.mark.slow),
]


def found(width, a, family, simulator, stimulus, cell=CELL):
    dut = SelectAdd(width, a, family=family)
    sources = {"core.sv": simulation_verilog(dut)} | ({"cell.v": cell} if family == "ecp5" else {})
    names = ("a", "b0", "b1", "select")
    return play(
        sources, dict(zip(names, map(list, zip(*stimulus, strict=True)), strict=True)), ["o"], simulator
    )["o"]


def cases(width, a, count=400):
    rng = random.Random(width)
    full, wide = (1 << width) - 1, (1 << a.width) - 1
    corners = list(product((0, wide, wide >> 1), (0, full, full >> 1), (0, full), (0, 1)))
    return corners + [
        (rng.randint(0, wide), rng.randint(0, full), rng.randint(0, full), rng.randint(0, 1))
        for _ in range(count)
    ]


def expected(width, a, stimulus):
    def value(bits):
        return bits - ((bits >> (a.width - 1)) << a.width) if a.signed else bits

    return [(value(x) + (b1 if select else b0)) % (1 << width) for x, b0, b1, select in stimulus]


@pytest.mark.parametrize(("family", "simulator"), RUNS)
@pytest.mark.parametrize(("width", "a"), SHAPES)
def test_sum(width, a, family, simulator):
    stimulus = cases(width, a)
    assert found(width, a, family, simulator, stimulus) == expected(width, a, stimulus)


@pytest.mark.parametrize(
    ("right", "wrong"), [('INJECT1_0 != "YES" && CIN', "1'b0"), ("{2'b00, B1, A1}", "{2'b01, B1, A1}")]
)
def test_a_wrong_cell_is_noticed(right, wrong):
    width, a = SHAPES[0]
    stimulus = cases(width, a)
    assert CELL.count(right) == 1
    assert found(width, a, "ecp5", "icarus", stimulus, CELL.replace(right, wrong)) != expected(
        width, a, stimulus
    )


def test_bad_parameters():
    with pytest.raises(ValueError, match=r"a is signed\(6\); it needs 1 to 5 bits"):
        SelectAdd(5, signed(6))
