# amaranth: UnusedElaboratable=no
"""Multiplier: exact products three clocks later, and the DSP block's body equal to the generic one."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path

import pytest
from amaranth.back import verilog
from amaranth.hdl import Shape, signed, unsigned

from pullback.rtl.numeric.multiplier import Multiplier

from .products import products

SHAPES = [
    (signed(18), signed(18)),
    (signed(18), unsigned(17)),
    (unsigned(17), unsigned(17)),
    (unsigned(16), signed(15)),
    (signed(11), signed(18)),
    (unsigned(1), signed(3)),
]
CELLS = {
    family: (Path(__file__).parents[3] / "sim" / "cells" / f"{name}.v").read_text()
    for family, name in (
        ("ecp5", "ecp5_mult18x18d"),
        ("gowin", "gowin_mult"),
        ("nexus", "nexus_mult"),
        ("ice40", "ice40_sb_mac16"),
    )
}


def limits(shape: Shape) -> tuple[int, int]:
    if shape.signed:
        return -(1 << (shape.width - 1)), (1 << (shape.width - 1)) - 1
    return 0, (1 << shape.width) - 1


def corners(shape: Shape) -> list[int]:
    lo, hi = limits(shape)
    return sorted({lo, min(lo + 1, hi), max(hi - 1, lo), hi, 0, 1, max(-1, lo)})


def operands(a: Shape, b: Shape, count: int) -> list[tuple[int, int]]:
    rng = random.Random(f"{a}{b}")
    pairs = [(x, y) for x in corners(a) for y in corners(b)]
    return pairs + [(rng.randint(*limits(a)), rng.randint(*limits(b))) for _ in range(count)]


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_generic_is_exact_three_clocks_later(a, b):
    dut = Multiplier(a, b)
    pairs = operands(a, b, 300)
    assert Multiplier.latency == 3
    assert products(dut, pairs) == [x * y for x, y in pairs]


def run_icarus(
    folder: Path, a: Shape, b: Shape, pairs: list, p: Shape, family: str, cell: str
) -> list[tuple]:
    """Both bodies side by side in Icarus: (generic, block) after every clock edge."""
    sources = []
    for body in ("generic", family):
        dut = Multiplier(a, b, body)
        text = verilog.convert(dut, name=body, ports=[dut.a, dut.b, dut.p], emit_src=False)
        # Amaranth's `always @*` has a trigger that Icarus only honours under Verilog-2005 rules.
        (folder / f"{body}.v").write_text(text)
        sources.append(folder / f"{body}.v")
    (folder / "cell.v").write_text(cell)
    words = [f"{(x & (1 << a.width) - 1) << b.width | y & (1 << b.width) - 1:x}" for x, y in pairs]
    (folder / "stimulus.hex").write_text("\n".join(words) + "\n")
    (folder / "bench.v").write_text(f"""
`timescale 1ns/1ps
module bench;
    reg clk = 0;
    reg [{a.width + b.width - 1}:0] stimulus [0:{len(pairs) - 1}];
    reg [{a.width - 1}:0] a = 0;
    reg [{b.width - 1}:0] b = 0;
    wire [{p.width - 1}:0] p0, p1;
    integer k;
    generic dut0 (.clk(clk), .rst(1'b0), .a(a), .b(b), .p(p0));
    {family} dut1 (.clk(clk), .rst(1'b0), .a(a), .b(b), .p(p1));
    initial begin
        $readmemh("{folder / "stimulus.hex"}", stimulus);
        for (k = 0; k < {len(pairs)}; k = k + 1) begin
            {{a, b}} = stimulus[k];
            #5 clk = 1;
            #5 $display("%h %h", p0, p1);
            clk = 0;
        end
        $finish;
    end
endmodule
""")
    subprocess.run(
        [
            "iverilog",
            "-g2005",
            "-o",
            folder / "bench",
            "-s",
            "bench",
            *sources,
            folder / "cell.v",
            folder / "bench.v",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    out = subprocess.run(["vvp", "-n", folder / "bench"], check=True, capture_output=True, text=True).stdout
    return [tuple(line.split()) for line in out.splitlines() if re.fullmatch(r"[0-9a-fx]+ [0-9a-fx]+", line)]


@pytest.mark.parametrize("family", CELLS)
@pytest.mark.parametrize(
    ("a", "b"), [*SHAPES, (signed(8), signed(8)), (signed(9), unsigned(8)), (signed(16), signed(16))]
)
def test_block_equals_generic_clock_by_clock(a, b, family, tmp_path):
    if family == "ice40":  # operands as wide as it takes
        a, b = (Shape(min(x.width, 16 - (not x.signed)), x.signed) for x in (a, b))
    pairs = operands(a, b, 1000)
    p = Multiplier(a, b).p.shape()
    lines = run_icarus(tmp_path, a, b, pairs, p, family, CELLS[family])
    assert len(lines) == len(pairs)
    assert all(generic == block for generic, block in lines)
    # And both are the product of three edges ago: two stuck bodies would be equal too.
    want = [f"{x * y & (1 << p.width) - 1:0{-(-p.width // 4)}x}" for x, y in pairs]
    assert [block for _, block in lines[2:]] == want[: len(lines) - 2]


@pytest.mark.parametrize(
    ("family", "right", "wrong"),
    [
        ("ecp5", "a_signed & a[17]", "1'b0"),  # unsigned
        ("ecp5", "{signed_out, p});", '{signed_out, p}); defparam out.CLK = "NONE";'),  # one register less
        ("gowin", "ASIGN & a[BITS-1]", "1'b0"),
        ("gowin", "OUT_REG ? out_register : pipe", "pipe"),
        ("nexus", "SIGNEDB & B[BITS-1]", "1'b0"),
        ("nexus", 'REGOUTPUT == "REGISTER" ? out_register : product[2*BITS-1:0]', "product[2*BITS-1:0]"),
        ("ice40", "A_SIGNED & a[15]", "1'b0"),
        ("ice40", "PIPELINE_16x16_MULT_REG1 ? lu_register : lu", "lu"),
    ],
)
def test_a_wrong_cell_is_noticed(family, right, wrong, tmp_path):
    a = b = signed(16)
    cell = CELLS[family]
    assert cell.count(right) == 1
    p = Multiplier(a, b).p.shape()
    lines = run_icarus(tmp_path, a, b, operands(a, b, 20), p, family, cell.replace(right, wrong))
    assert any(generic != block for generic, block in lines)


@pytest.mark.parametrize(
    ("a", "b", "family", "message"),
    [
        (signed(19), signed(18), "generic", "operand a .*19 bits .*b has 18"),
        (signed(18), unsigned(18), "ecp5", "operand b .*18 bits .*1 to 17 bits unsigned"),
        (signed(18), unsigned(0), "ecp5", "operand b .*0 bits"),
        (signed(17), signed(8), "ice40", "operand a .*17 bits .*1 to 16 bits signed"),
        (signed(18), signed(18), "tin", "family 'tin' is unknown.*generic or ecp5 or gowin"),
    ],
)
def test_bad_parameters(a, b, family, message):
    with pytest.raises(ValueError, match=message):
        Multiplier(a, b, family)
