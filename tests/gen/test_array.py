# amaranth: UnusedElaboratable=no
"""The array as a build of a whole chip: every multiplier of an LFE5U-25F, and what else it takes of it."""

from __future__ import annotations

import re

import pytest

from pullback.gen.flow import Device
from pullback.gen.synthesis import Aim, netlist, route
from pullback.rtl.systolic.array import SystolicArray
from pullback.rtl.systolic.build import UnitBuild
from pullback.rtl.systolic.placement import largest, sites
from pullback.rtl.systolic.unit import ArrayUnit

pytestmark = pytest.mark.synthesis

DEVICE = Device(size="25k", package="CABGA381")
LUTS = 24288
"""Look-up tables of an LFE5U-25F, and as many registers, as nextpnr 0.11.1 counts them."""


def test_the_whole_unit_fits_into_a_25f(tmp_path):
    """With memories, partial sums, requantisation, pools and programme: elements apart, each multiplier at its site,
    placed and routed with one seed.
    """
    build = largest("25k")
    around = UnitBuild(array=build, memory=1024, sums=512, masks=1024, programme=512, ram="ecp5")
    unit = ArrayUnit(around, site=sites("25k", build))
    made = netlist(unit, directory=tmp_path, apart="element_*", controls=8)
    done = route(made, 1, aim=Aim(60, placer="heap"), device=DEVICE)
    print(made.packed(done), done)
    log = next(tmp_path.glob("route-*.log")).read_text()
    assert re.search(r"MULT18X18D:\s+28/\s+28 ", log)
    assert made.area.mult == DEVICE.macros["MULT18X18D"]
    # Operands: as many words as lanes in each of three memories, a block a bank. The rest lies beside them.
    assert 3 * around.lanes <= made.area.ebr <= DEVICE.macros["DP16KD"]
    assert done.comb <= LUTS and done.fmax >= 60


@pytest.mark.slow
def test_the_array_fits_into_the_chip(tmp_path):
    """Elements apart, each multiplier at its site, placed and routed with one seed."""
    build = largest("25k")
    made = netlist(SystolicArray(build, site=sites("25k", build)), directory=tmp_path, apart="element_*")
    done = route(made, 1, aim=Aim(250), device=DEVICE)
    area = made.packed(done)
    print(area, done)
    log = next(tmp_path.glob("route-*.log")).read_text()
    assert re.search(r"MULT18X18D:\s+28/\s+28 ", log)
    assert area.mult == DEVICE.macros["MULT18X18D"] == build.rows * build.columns == 28
    assert area.ebr == area.dpr16x4 == 0
    # A carry cell takes two look-up tables.
    assert area.lut4 + 2 * area.carry < LUTS / 8 and area.ff < LUTS / 4
