# amaranth: UnusedElaboratable=no
"""Block RAM: a word two clocks after its row, and the ECP5's blocks equal to the generic body clock by clock."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path

import pytest
from amaranth.back import verilog
from amaranth.sim import Simulator

from pullback.rtl.stream.ram import BlockRam

CELL = Path(__file__).parents[3] / "sim" / "cells" / "ecp5_dp16kd.v"

# Every width of a block, words of several slices, rows that are no power of two, several banks.
SIZES = [(18, 1024), (5, 3), (40, 65), (25, 1025), (9, 2048), (7, 4000), (5, 7680), (3, 9000), (2, 16385)]


def accesses(width: int, rows: int, count: int = 3000) -> list[tuple[int, int, int, int]]:
    """(write, write_row, write_data, read_row): often the same few rows, never written and read at once."""
    rng = random.Random(width * rows)
    few = [0, rows - 1, *(rng.randrange(rows) for _ in range(6))]

    def row() -> int:
        return rng.choice(few) if rng.random() < 0.8 else rng.randrange(rows)

    found = []
    for _ in range(count):
        write_row, read_row = row(), row()
        # In a block of narrow rows eighteen bits are one place, and its neighbours meet as well.
        write = (
            rng.random() < 0.6 and write_row // 16 != read_row // 16 if rows > 16 else write_row != read_row
        )
        found.append((int(write), write_row, rng.getrandbits(width), read_row))
    return found


def expected(rows: int, stimulus: list) -> list[int]:
    """What was in each row that was read."""
    memory = [0] * rows
    read = []
    for write, write_row, data, read_row in stimulus:
        read.append(memory[read_row])
        if write:
            memory[write_row] = data
    return read


@pytest.mark.parametrize(("width", "rows"), SIZES)
def test_a_word_comes_two_clocks_after_its_row(width, rows):
    dut = BlockRam(width, rows)
    stimulus = accesses(width, rows, 300)
    got = []

    async def bench(ctx):
        for write, write_row, data, read_row in [*stimulus, (0, 0, 0, 0), (0, 0, 0, 0)]:
            ctx.set(dut.write, write)
            ctx.set(dut.write_row, write_row)
            ctx.set(dut.write_data, data)
            ctx.set(dut.read_row, read_row)
            got.append(ctx.get(dut.read_data))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert got[BlockRam.latency :] == expected(rows, stimulus)


def run_icarus(folder: Path, width: int, rows: int, stimulus: list, cell: str) -> list[tuple[str, str]]:
    """Both bodies side by side in Icarus: (generic, ecp5) after every clock edge."""
    bits = max((rows - 1).bit_length(), 1)
    for family in BlockRam.families:
        dut = BlockRam(width, rows, family=family)
        ports = [dut.write, dut.write_row, dut.write_data, dut.read_row, dut.read_data]
        # Amaranth's `always @*` has a trigger that Icarus only honours under Verilog-2005 rules.
        (folder / f"{family}.v").write_text(verilog.convert(dut, name=family, ports=ports, emit_src=False))
    (folder / "cell.v").write_text(cell)
    total = 1 + 2 * bits + width
    words = [f"{((w << bits | wr) << width | d) << bits | rr:x}" for w, wr, d, rr in stimulus]
    (folder / "stimulus.hex").write_text("\n".join(words) + "\n")
    ports = ".clk(clk), .rst(1'b0), .write(w), .write_row(wr), .write_data(d), .read_row(rr)"
    (folder / "bench.v").write_text(f"""
`timescale 1ns/1ps
module bench;
    reg clk = 0;
    reg [{total - 1}:0] stimulus [0:{len(stimulus) - 1}];
    reg w = 0;
    reg [{bits - 1}:0] wr = 0, rr = 0;
    reg [{width - 1}:0] d = 0;
    wire [{width - 1}:0] q0, q1;
    integer k;
    generic dut0 ({ports}, .read_data(q0));
    ecp5 dut1 ({ports}, .read_data(q1));
    initial begin
        $readmemh("{folder / "stimulus.hex"}", stimulus);
        for (k = 0; k < {len(stimulus)}; k = k + 1) begin
            {{w, wr, d, rr}} = stimulus[k];
            #5 clk = 1;
            #5 $display("%h %h", q0, q1);
            clk = 0;
        end
        $finish;
    end
endmodule
""")
    files = [folder / f"{name}.v" for name in (*BlockRam.families, "cell", "bench")]
    subprocess.run(
        ["iverilog", "-g2005", "-o", folder / "bench", "-s", "bench", *files], check=True, capture_output=True
    )
    out = subprocess.run(["vvp", "-n", folder / "bench"], check=True, capture_output=True, text=True).stdout
    return re.findall(r"^([0-9a-fxX]+) ([0-9a-fxX]+)$", out, re.MULTILINE)


@pytest.mark.parametrize(("width", "rows"), SIZES)
def test_ecp5_equals_generic_clock_by_clock(width, rows, tmp_path):
    stimulus = accesses(width, rows)
    lines = run_icarus(tmp_path, width, rows, stimulus, CELL.read_text())
    # And both are what was written: two stuck bodies would be equal too.
    want = [f"{word:0{-(-width // 4)}x}" for word in expected(rows, stimulus)]
    assert [generic for generic, _ in lines[1:]] == want[: len(lines) - 1]
    assert [ecp5 for _, ecp5 in lines[1:]] == want[: len(lines) - 1]
    assert len(lines) == len(stimulus)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('REGMODE_B == "OUTREG" ? register_b : word_b', "word_b"),  # one register less
        ("9 * address[3] + index", "index"),  # half of the rows are the other half
    ],
)
def test_a_wrong_cell_is_noticed(right, wrong, tmp_path):
    cell = CELL.read_text()
    assert cell.count(right) == 1
    lines = run_icarus(tmp_path, 9, 2048, accesses(9, 2048), cell.replace(right, wrong))
    assert any(generic != ecp5 for generic, ecp5 in lines[1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0, "rows": 4}, "4 rows of 0 bits"),
        ({"width": 8, "rows": 0}, "0 rows of 8 bits"),
        ({"width": 8, "rows": 4, "family": "ice40"}, "family 'ice40' is unknown.*generic or ecp5"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        BlockRam(**arguments)
