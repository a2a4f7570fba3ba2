# amaranth: UnusedElaboratable=no
"""OperandMemory: runs that begin anywhere, read and written in every clock, against a flat array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import signed

from pullback.gen.verilog import simulation_verilog
from pullback.rtl.systolic.operand_memory import OperandMemory, Rotate
from pullback.sim.bench.waves import pack, play

CELL = (Path(__file__).parents[3] / "sim" / "cells" / "ecp5_dp16kd.v").read_text()
SIZES = [(2, 4, 5), (4, 1, 8), (8, 16, 9), (16, 8, 8), (16, 2, 18)]

# The block's model on Verilator as well takes a build more of every size; it is the same model.
RUNS = [
    ("generic", "icarus"),
    ("generic", "verilator"),
    ("ecp5", "icarus"),
    pytest.param("ecp5", "verilator", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("family", "simulator"), RUNS)
@pytest.mark.parametrize(("lanes", "rows", "width"), SIZES)
def test_runs_anywhere(lanes, rows, width, family, simulator):
    rng = np.random.default_rng(lanes * rows)
    dut = OperandMemory(lanes, rows, signed(width), family=family)
    size, clocks = lanes * rows, 400
    read_at, write_at = rng.integers(0, size, (2, clocks))
    # Often what was written a little before, so that the latency is exact.
    again = rng.random(clocks) < 0.4
    for k in range(dut.write_latency + 2, clocks):
        if again[k]:
            read_at[k] = write_at[k - dut.write_latency - rng.integers(0, 2)]
    read_on, write = (rng.integers(0, 2, (2, clocks, lanes)) | (rng.random((2, clocks, 1)) < 0.5)).astype(int)
    write *= rng.random((clocks, 1)) < 0.6
    values = rng.integers(-(1 << (width - 1)), 1 << (width - 1), (clocks, lanes))

    # Nobody looks at a bank in the clock in which it is written.
    for k in range(dut.write_latency - 1, clocks):
        meeting = k - dut.write_latency + 1
        busy = {(write_at[meeting] + lane) % lanes for lane in np.flatnonzero(write[meeting])}
        for lane in range(lanes):
            read_on[k][lane] &= (read_at[k] + lane) % lanes not in busy

    # First everything is written once: RAM holds anything.
    fill = [(row * lanes, rng.integers(-(1 << (width - 1)), 1 << (width - 1), lanes)) for row in range(rows)]
    head = len(fill) + dut.write_latency
    memory = np.zeros(size, int)
    waves: dict[str, list[int]] = {
        "write_at": [at for at, _ in fill] + [0] * dut.write_latency + write_at.tolist(),
        "write": [(1 << lanes) - 1] * len(fill) + [0] * dut.write_latency + [pack(w, 1) for w in write],
        "write_data": [pack(v, width) for _, v in fill]
        + [0] * dut.write_latency
        + [pack(v, width) for v in values],
        "read_at": [0] * head + read_at.tolist(),
        "read_on": [0] * head + [pack(r, 1) for r in read_on],
    }
    for values_of_port in waves.values():
        values_of_port += [0] * dut.read_latency
    for at, row in fill:
        memory[at : at + lanes] = row
    sources = {"core.sv": simulation_verilog(dut)} | ({"cell.v": CELL} if family == "ecp5" else {})
    shown = play(sources, waves, ["o"], simulator)["o"][head + dut.read_latency :]

    read = cleared = recent = 0
    age = np.full(size, 10**6)
    for k in range(clocks):
        if (past := k - dut.write_latency) >= 0:
            for lane in np.flatnonzero(write[past]):
                memory[(write_at[past] + lane) % size] = values[past][lane]
                age[(write_at[past] + lane) % size] = k
        assert shown[k] is not None
        for lane in range(lanes):
            at, on = (read_at[k] + lane) % size, read_on[k][lane]
            want = int(memory[at]) & ((1 << width) - 1) if on else 0
            assert (shown[k] >> (lane * width)) & ((1 << width) - 1) == want, (k, lane)
            read += on
            cleared += not on
            recent += bool(on and age[at] == k)
    assert read > 200 and cleared > 200 and recent > 10, (read, cleared, recent)


@pytest.mark.parametrize("lanes", [2, 4, 8, 16, 64])
def test_rotate(lanes):
    rng = np.random.default_rng(lanes)
    dut = Rotate(lanes, signed(4))
    assert dut.latency == {2: 1, 4: 1, 8: 2, 16: 2, 64: 3}[lanes]
    rows = rng.integers(0, 16, (200, lanes))
    by = rng.integers(0, lanes, 200)
    on = rng.integers(0, 2, (200, lanes))
    waves = {
        "i": [pack(r, 4) for r in rows],
        "by": by.tolist(),
        "on": [pack(r, 1) for r in on],
    }
    for values in waves.values():
        values += [0] * dut.latency
    shown = play({"core.sv": simulation_verilog(dut)}, waves, ["o"], "icarus")["o"][dut.latency :]
    assert shown == [pack(np.roll(r, -int(b)) * o, 4) for r, b, o in zip(rows, by, on, strict=True)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rotate(3, 8), "lanes=3; give a power of two, at least 2"),
        (lambda: Rotate(1, 8), "lanes=1; give"),
        (lambda: OperandMemory(4, 6, 8), "rows=6; give a power of two"),
        (lambda: OperandMemory(12, 8, 8), "lanes=12; give"),
        (lambda: OperandMemory(4, 8, 8, family="tin"), "family='tin'; choose one of generic, ecp5"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()
