# amaranth: UnusedElaboratable=no
"""The array after synthesis: mapped to the cells of a family it gives the golden products."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

from pullback.gen.mapped import mapped
from pullback.rtl.systolic.array import SystolicArray
from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.unit import ArrayUnit
from pullback.sim.bench.array import Waves, random_tile, schedule
from pullback.sim.bench.waves import play, unpack
from pullback.sim.golden.matmul import PRODUCTS

from .test_unit import Session

pytestmark = pytest.mark.synthesis

CELLS = Path(__file__).parents[3] / "sim" / "cells"
BLOCKS = {
    "ecp5": ("MULT18X18D", "ecp5_mult18x18d"),
    "ice40": ("SB_MAC16", "ice40_sb_mac16"),
    "gowin": ("MULT9X9", "gowin_mult"),
    "nexus": ("MULT9X9", "nexus_mult"),
}
"""Type of the block that multiplies, and the file with its model."""


def model(family: str) -> str:
    return (CELLS / f"{BLOCKS[family][1]}.v").read_text()


def stimulus(build: ArrayBuild, rng: np.random.Generator) -> Waves:
    """Every product after every other one, of random operands and of extreme ones: close together, then with gaps."""
    most, lo = max(build.rows, build.columns), -(1 << (build.operand - 1))
    order = 2 * [each for pair in product(PRODUCTS, PRODUCTS) for each in pair]
    counts = [most if k % 3 == 0 else int(rng.integers(1, 2 * most + 2)) for k in range(len(order))]
    tiles = [
        random_tile(rng, build, each, rows, extreme=k % 4 == 0)
        for k, (each, rows) in enumerate(zip(order, counts, strict=True))
    ]
    bins: Counter[str] = Counter()
    for before, tile in pairwise(tiles):
        bins[f"{before.product}->{tile.product}"] += 1
        bins[f"{tile.product} of extremes"] += int(np.isin(tile.b, (lo, -lo - 1)).all())
        bins["below 0"] += int((tile.result < 0).any())
        bins["above 0"] += int((tile.result > 0).any())
    print(dict(sorted(bins.items())))
    assert len(bins) == 9 + 3 + 2 and min(bins.values()) > 0
    half = len(tiles) // 2
    return schedule(
        build, tiles, SystolicArray(build).latency, gaps=[0] * half + rng.integers(0, 4, half).tolist()
    )


def wrong(sources: Mapping[str, str], build: ArrayBuild, waves: Waves, rng: np.random.Generator) -> list[int]:
    """Clocks at whose end other results stand than should."""
    shown = play(sources, waves.inputs(rng), ["o"])["o"]
    assert len(waves.results) > 0
    return [
        k
        for k, row in sorted(waves.results.items())
        if (bits := shown[k]) is None or unpack(bits, build.columns, build.accumulator) != row.tolist()
    ]


_TABLE = re.compile(
    r"(?<=INIT\()(?:(?P<width>\d+)'h(?P<bits>[0-9a-f]+)|\"0x(?P<text>[0-9A-Fa-f]{4})\")(?=\))"
)


def tables(netlist: str) -> list[re.Match[str]]:
    """Contents of the netlist's look-up tables, in its order."""
    return [
        found
        for cell in re.finditer(r"^  (?:SB_)?LUT[1-4] #\(.*?^  \);$", netlist, re.MULTILINE | re.DOTALL)
        if (found := _TABLE.search(netlist, *cell.span()))
    ]


def inverted(netlist: str, table: re.Match[str]) -> str:
    """The netlist with a look-up table that says the opposite."""
    if table["text"]:
        changed = f'"0x{0xFFFF ^ int(table["text"], 16):04X}"'
    else:
        width = int(table["width"])
        changed = f"{width}'h{(1 << width) - 1 ^ int(table['bits'], 16):x}"
    return netlist[: table.start()] + changed + netlist[table.end() :]


@pytest.mark.parametrize(
    "family", ["ecp5", "ice40", *(pytest.param(each, marks=pytest.mark.slow) for each in ("gowin", "nexus"))]
)
def test_netlist_is_golden(family, tmp_path):
    build, rng = ArrayBuild(rows=2, columns=2, family=family), np.random.default_rng(1)
    made = mapped(SystolicArray(build), family, tmp_path)
    print(family, dict(sorted(made.cells.items())))
    block, _ = BLOCKS[family]
    assert made.cells[block] == 4
    waves, sources = stimulus(build, rng), made.sources(model(family))
    assert wrong(sources, build, waves, rng) == []
    if block in made.models:
        assert wrong(made.sources(), build, waves, rng) == []
    planted = inverted(made.netlist, tables(made.netlist)[0])
    assert wrong(sources | {"core.v": planted}, build, waves, rng) != []


@pytest.mark.slow
def test_unit_is_golden(tmp_path):
    """A programme of all three products on the netlist of a unit with its memories, mapped as it is measured; every
    stream stalls at random.

    On the ECP5 only: the iCE40 has no distributed RAM, which the unit's FIFOs ask for.
    """
    array = ArrayBuild(rows=3, columns=2, family="ecp5")
    build = UnitBuild(array=array, memory=512, sums=256, masks=64, programme=1024, ram="ecp5")
    made = mapped(ArrayUnit(build), "ecp5", tmp_path, apart="element_*", controls=8)
    print(dict(sorted(made.cells.items())))
    assert made.cells["MULT18X18D"] == 6 and made.cells["DP16KD"] > 0
    sources = made.sources(model("ecp5"), (CELLS / "ecp5_dp16kd.v").read_text())
    session = Session(build, 1)
    for job in (session.y, session.dx, session.dw):
        job(int(session.rng.integers(3, 8)))
    print(dict(sorted(session.hit.items())))
    for fields, what, _ in session.wanted:
        session.host.want(fields, what)
    found = session.host.play(seed=1, sources=sources)
    for values, (_, what, expected) in zip(found, session.wanted, strict=True):
        np.testing.assert_array_equal(values, expected, str(what))
