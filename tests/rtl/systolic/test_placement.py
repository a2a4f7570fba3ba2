"""Places of an array's multipliers: every one of the part, once, and in nextpnr's own list."""

from __future__ import annotations

from itertools import product

import pytest

from pullback.gen.flow import Device
from pullback.gen.macros import sites as sites_of_part
from pullback.rtl.systolic.build import ArrayBuild
from pullback.rtl.systolic.placement import PARTS, largest, sites


@pytest.mark.synthesis
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_multiplier_of_the_part_is_taken_once(part, packed, tmp_path):
    build = largest(part, packed=packed)
    site = sites(part, build)
    columns = build.columns // build.shared
    taken = [site(r, c) for r, c in product(range(build.rows), range(columns))]
    there = {
        each.bel: each
        for each in sites_of_part(Device(size=part, package="CABGA381"), tmp_path)["MULT18X18D"]
    }
    assert sorted(taken) == sorted(there)
    # Rows of a band and neighbours in a row lie side by side; columns run from left to right.
    for c in range(columns):
        for r in range(build.rows):
            here = there[site(r, c)]
            assert here.y == there[site(r - r % 4, c)].y
            assert c == 0 or there[site(r, c - 1)].x < here.x


@pytest.mark.parametrize(
    ("part", "build", "message"),
    [
        ("12k", ArrayBuild(rows=4, columns=4), "size '12k' is unknown; give 25k, 45k, 85k"),
        ("25k", ArrayBuild(rows=5, columns=7), "5 x 7 is larger than the 4 x 7 multipliers of an LFE5U-25F"),
        ("25k", ArrayBuild(rows=4, columns=8), "4 x 8 is larger"),
        ("25k", ArrayBuild(rows=4, columns=16, packed=True), "4 x 16 is larger than the 4 x 14"),
        ("85k", ArrayBuild(rows=12, columns=13), "band=0; rows of DSP blocks lie apart, so give band=4"),
    ],
)
def test_what_cannot_be_placed(part, build, message):
    with pytest.raises(ValueError, match=message):
        sites(part, build)
