"""A component after synthesis: the cells that one knows it comes to, and the same values in Icarus as before."""

from __future__ import annotations

from collections import Counter as Tally
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pullback.gen.flow import SynthesisError
from pullback.gen.mapped import FAMILIES, Mapped, mapped
from pullback.sim.bench.waves import play

pytestmark = pytest.mark.synthesis


class Counter(wiring.Component):
    """s = s + a where ``on``, from 3: registers with an enable and both reset values, a carry chain."""

    def __init__(self):
        super().__init__({"a": In(8), "on": In(1), "s": Out(8)})

    def elaborate(self, platform):
        m = Module()
        s = Signal(8, init=3)
        with m.If(self.on):
            m.d.sync += s.eq(s + self.a)
        m.d.comb += self.s.eq(s)
        return m


@pytest.mark.parametrize(
    "family", [pytest.param(each, marks=[pytest.mark.slow] if each == "nexus" else []) for each in FAMILIES]
)
def test_netlist_counts(family, tmp_path):
    made = mapped(Counter(), family, tmp_path)
    print(family, dict(made.cells))
    registers = sum(count for kind, count in made.cells.items() if "FF" in kind or kind.startswith("FD"))
    assert registers == 8
    rng = np.random.default_rng(1)
    a, on = rng.integers(0, 256, 200), rng.integers(0, 2, 200)
    shown = play(made.sources(), {"a": a.tolist(), "on": on.tolist()}, ["s"])["s"]
    assert shown == [(3 + int((a * on)[:k].sum())) % 256 for k in range(200)]


class Alike(wiring.Component):
    """y = w[2] xor u, where u is a register of the very name ``w[2]``."""

    def __init__(self):
        super().__init__({"d": In(4), "e": In(1), "y": Out(1)})

    def elaborate(self, platform):
        m = Module()
        w, u = Signal(4, name="w", reset_less=True), Signal(name="w[2]", reset_less=True)
        m.d.sync += [w.eq(self.d), u.eq(self.e)]
        m.d.comb += self.y.eq(w[2] ^ u)
        return m


def alike(directory: Path) -> bool:
    """Whether its netlist for the ECP5 does what it should."""
    rng = np.random.default_rng(2)
    d, e = rng.integers(0, 16, 100), rng.integers(0, 2, 100)
    shown = play(mapped(Alike(), "ecp5", directory).sources(), {"d": d.tolist(), "e": e.tolist()}, ["y"])["y"]
    return shown[1:] == [int(x) for x in (d >> 2 & 1 ^ e)[:-1]]


def test_a_wire_named_like_a_bit_of_another_is_not_taken_for_it(tmp_path, monkeypatch):
    assert alike(tmp_path / "netlist")
    monkeypatch.setattr("pullback.gen.mapped.unambiguous", lambda core: core)
    assert not alike(tmp_path / "taken for it")


def test_an_unknown_family_is_refused(tmp_path):
    with pytest.raises(ValueError, match="family 'tin' is unknown; give ecp5 or ice40 or gowin or nexus"):
        mapped(Counter(), "tin", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_is_no_cell_of_the_family_is_refused(tmp_path, monkeypatch):
    nothing = {"gowin": ("proc\nhierarchy", "gowin/cells_sim.v")}
    monkeypatch.setattr("pullback.gen.mapped._FAMILIES", nothing)
    with pytest.raises(SynthesisError, match=r"mapped\.v has cells that are none of gowin: .*\$add"):
        mapped(Counter(), "gowin", tmp_path)


def test_models_that_are_brought_take_the_place_of_yosys_own():
    yosys = {name: f"module {name}(); // yosys\nendmodule" for name in ("LUT", "MULT")}
    made = Mapped(netlist="module core(); endmodule\n", cells=Tally(), models=yosys, before="// first")
    assert made.sources() == {
        "core.v": made.netlist,
        "library.v": f"// first\n{yosys['LUT']}\n{yosys['MULT']}\n",
    }
    mine = "`default_nettype none\nmodule MULT #(parameter A = 0) ();\nendmodule\nmodule part; endmodule\n"
    assert made.sources(mine) == {
        "core.v": made.netlist,
        "library.v": f"// first\n{yosys['LUT']}\n",
        "model_0.v": mine,
    }
