# amaranth: UnusedElaboratable=no
"""Area and clock on families besides the ECP5, each by its own tools."""

from __future__ import annotations

import json

import pytest
from amaranth.hdl import signed

from pullback.gen.families import FAMILIES, place, stamp
from pullback.gen.flow import SynthesisError
from pullback.rtl.numeric.multiplier import Multiplier
from pullback.rtl.systolic.array import SystolicArray
from pullback.rtl.systolic.build import ArrayBuild

pytestmark = pytest.mark.synthesis


@pytest.mark.parametrize("family", FAMILIES)
def test_a_multiplier_is_one_block(family, tmp_path):
    def made() -> Multiplier:
        return Multiplier(signed(8), signed(8), family=family)

    placed = place(made(), family, 1, frequency=100.0, directory=tmp_path)
    blocks = {kind: n for kind, n in placed.cells.items() if kind.startswith(("SB_MAC16", "MULT"))}
    assert list(blocks.values()) == [1], placed.cells
    # Harness and pads are not counted.
    assert not [kind for kind in placed.cells if "LUT" in kind or "DFF" in kind or "BUF" in kind]
    assert 20 < placed.fmax < 1000 and " -> " in placed.path
    assert (tmp_path / "netlist.stamp").read_text() == stamp(made(), family)
    report = json.loads((tmp_path / "route-1.json").read_text())
    assert [round(clock["achieved"], 2) for clock in report["fmax"].values()] == [placed.fmax]


def test_an_unknown_family_is_refused(tmp_path):
    with pytest.raises(ValueError, match="family 'ecp6' is unknown; give ice40 or gowin or nexus"):
        place(Multiplier(signed(8), signed(8)), "ecp6", 1, frequency=100.0, directory=tmp_path)


def test_what_does_not_fit_is_told(tmp_path):
    """An iCE40UP5K has eight multipliers; the message ends with nextpnr's own words."""
    array = SystolicArray(ArrayBuild(rows=3, columns=3, family="ice40"))
    with pytest.raises(SynthesisError, match=r"nextpnr-ice40 failed .*route-1\.log ends:(?s:.*)ERROR"):
        place(array, "ice40", 1, frequency=20.0, directory=tmp_path)
