# amaranth: UnusedElaboratable=no
"""PartialSums: rows that grow in RAM, with bias rows, overflow flagged, both families alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pullback.gen.verilog import simulation_verilog
from pullback.rtl.systolic.partial_sums import PartialSums, command
from pullback.sim.bench.waves import pack, play, unpack

CELLS = Path(__file__).parents[3] / "sim" / "cells"
MODELS = {f"{name}.v": (CELLS / f"{name}.v").read_text() for name in ("ecp5_dp16kd", "ecp5_ccu2c")}

# The block's model on Verilator as well takes a build more of every size; it is the same model.
RUNS = [
    ("generic", "icarus"),
    ("generic", "verilator"),
    ("ecp5", "icarus"),
    pytest.param("ecp5", "verilator", marks=pytest.mark.slow),
]


def wrap(x: np.ndarray, width: int) -> np.ndarray:
    return (x + (1 << (width - 1))) % (1 << width) - (1 << (width - 1))


@pytest.mark.parametrize(("family", "simulator"), RUNS)
@pytest.mark.parametrize(
    ("lanes", "rows", "narrow", "wide"), [(3, 40, 10, 11), (1, 64, 24, 32), (13, 33, 8, 8)]
)
def test_rows_grow(lanes, rows, narrow, wide, family, simulator):
    rng = np.random.default_rng(rows)
    dut = PartialSums(lanes, rows, narrow, wide, family=family)
    clocks = 600
    i = rng.integers(-(1 << (narrow - 1)), 1 << (narrow - 1), (clocks, lanes))
    i[: clocks // 2] >>= 2  # small ones first, then the largest: some rows stay and some wrap
    i[clocks // 2 :: 2] = (1 << (narrow - 1)) - 1
    beside = rng.integers(-(1 << (wide - 1)), 1 << (wide - 1), (clocks, lanes))
    beside[::3] >>= 3
    turns = rng.random(clocks) < 0.3
    fields = {name: rng.integers(0, rows, clocks) for name in ("read", "write")}
    fields |= {name: (rng.random(clocks) < 0.6).astype(int) for name in ("add", "keep")}
    fields["write"][:rows], fields["add"][:rows], fields["keep"][:rows] = np.arange(rows), 0, 1
    # Mostly the row that was written as shortly before as is allowed.
    after = dut.lead + dut.latency
    for k in range(rows + after, clocks):
        if rng.random() < 0.5:
            fields["read"][k] = fields["write"][k - after]

    memory = np.zeros((rows, lanes), int)
    written: list[tuple[int, int, np.ndarray]] = []  # clock from which it is read, row, values
    want, wrapped, looked = [], [], []
    for k in range(clocks):
        while written and written[0][0] <= k:
            _, row, values = written.pop(0)
            memory[row] = values
        # In the clock of the write itself nobody looks at any row: of the ECP5's block neighbours meet too.
        meets = k >= after - 1 and fields["keep"][k - after + 1]
        if meets and fields["add"][k] and k >= rows:
            fields["add"][k] = 0
        exact = (beside[k] if turns[k] else i[k]) + (memory[fields["read"][k]] if fields["add"][k] else 0)
        total = wrap(exact, wide)
        want.append(pack(total, wide))
        wrapped.append(int((total != exact).any()))
        looked.append(fields["add"][k])
        if fields["keep"][k]:
            written.append((k + after, int(fields["write"][k]), total))
    layout = command(rows)
    words = [sum(int(fields[name][k]) << layout[name].offset for name in fields) for k in range(clocks)]
    start = dut.lead + dut.latency
    waves = {
        "command": words + [0] * (start + 1),
        "i": [0] * dut.lead + [pack(row, narrow) for row in i] + [0] * 2,
        "beside": [0] * dut.lead + [pack(row, wide) for row in beside] + [0] * 2,
        "turns": [0] * (dut.lead - 2) + turns.astype(int).tolist() + [0] * 4,
    }
    sources = {"core.sv": simulation_verilog(dut)} | (MODELS if family == "ecp5" else {})
    shown = play(sources, waves, ["o", "negative", "overflow"], simulator)
    assert shown["o"][start:-1] == want
    signs = [pack([lane < 0 for lane in unpack(word, lanes, wide)], 1) for word in want]
    assert shown["negative"][start:-1] == signs
    assert shown["overflow"][start + 2 :] == wrapped[:-1]
    assert sum(looked) > 50 and (wide > 20 or 5 < sum(wrapped) < clocks), (sum(looked), sum(wrapped))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 8, 4, 8), "lanes=0"), ((2, 8, 9, 8), "narrow=9, wide=8; give"), ((2, 0, 4, 8), "rows=0")],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        PartialSums(*arguments)
