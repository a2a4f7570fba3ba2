"""Area and clock through yosys and nextpnr, on components small enough to know the answer."""

import json
import re
from dataclasses import replace

import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pullback.gen.flow import Device, SynthesisError, run_tool
from pullback.gen.synthesis import (
    Aim,
    Area,
    Route,
    Synthesis,
    netlist,
    route,
    stamp,
    synthesise,
)
from pullback.gen.units import unambiguous
from pullback.gen.verilog import verilog
from pullback.rtl.numeric.multiplier import Multiplier

pytestmark = pytest.mark.synthesis


class Adder(wiring.Component):
    """s = a + b behind a register, 16 bits: eight carry cells, sixteen flip-flops."""

    def __init__(self):
        super().__init__({"a": In(16), "b": In(16), "s": Out(16)})

    def elaborate(self, platform):
        m = Module()
        s = Signal(16, reset_less=True)
        m.d.sync += s.eq(self.a + self.b)
        m.d.comb += self.s.eq(s)
        return m


class Pair(wiring.Component):
    """Two adders, one behind the other: each a unit that is mapped by itself."""

    def __init__(self):
        super().__init__({"a": In(16), "b": In(16), "s": Out(16)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.one, m.submodules.two = one, two = Adder(), Adder()
        m.d.comb += [one.a.eq(self.a), one.b.eq(self.b), two.a.eq(one.s), two.b.eq(self.b), self.s.eq(two.s)]
        return m


class Around(wiring.Component):
    """A component as the one unit of another with the same ports."""

    def __init__(self, inside):
        self._inside = inside
        super().__init__(inside.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inside = self._inside
        wiring.connect(m, wiring.flipped(self), self._inside)
        return m


class Twins(wiring.Component):
    """Two adders that hold the same."""

    def __init__(self):
        super().__init__({"a": In(16), "b": In(16), "s": Out(32)})

    def elaborate(self, platform):
        m = Module()
        for k in range(2):
            m.submodules[f"element_{k}"] = element = Adder()
            m.d.comb += [
                element.a.eq(self.a),
                element.b.eq(self.b),
                self.s[16 * k : 16 * k + 16].eq(element.s),
            ]
        return m


class Held(wiring.Component):
    """Three registers under an enable of their own."""

    def __init__(self):
        super().__init__({"i": In(3), "on": In(1), "o": Out(3)})

    def elaborate(self, platform):
        m = Module()
        o = Signal(3, reset_less=True)
        with m.If(self.on):
            m.d.sync += o.eq(self.i)
        m.d.comb += self.o.eq(o)
        return m


def test_an_enable_of_few_registers_becomes_logic(tmp_path):
    found = {
        few: netlist(Around(Held()), directory=tmp_path / str(few), controls=few).area for few in (1, 3, 4)
    }
    assert [(area.ff, area.lut4) for area in found.values()] == [(3, 0), (3, 0), (3, 3)]
    assert stamp(Around(Held())) != stamp(Around(Held()), controls=4)


def test_units_inside_a_unit_stay_apart(tmp_path):
    merged = netlist(Around(Twins()), directory=tmp_path / "merged")
    apart = netlist(Around(Twins()), directory=tmp_path / "apart", apart="element_*")
    assert (merged.area.ff, merged.area.carry) == (16, 8)
    assert (apart.area.ff, apart.area.carry) == (32, 16)
    assert route(apart, 1).fmax > 0
    assert stamp(Around(Twins())) != stamp(Around(Twins()), apart="element_*")


def test_units_come_together(tmp_path):
    done = synthesise(Pair(), "pair", directory=tmp_path, seeds=(1,), workers=2)
    assert (done.area.carry, done.area.ff) == (16, 32)
    # What nextpnr placed is both of them, and the harness.
    assert 32 <= done.area.comb - done.area.lut4 <= 32 + 12
    assert "core.two" in done.path or "core.one" in done.path
    assert len(list((tmp_path / "units").glob("*.il"))) == 2


def test_two_drivers_of_a_net_are_refused(tmp_path):
    """Planted in a unit, as it comes from its folder: two registers at one bit of its output."""
    netlist(Pair(), directory=tmp_path)
    (unit,) = (each for each in (tmp_path / "units").glob("*.il") if "core.one" in each.read_text())
    text = unit.read_text()
    assert text.count("connect \\Q \\s [3]\n") == 1
    unit.write_text(text.replace("connect \\Q \\s [3]\n", "connect \\Q \\s [2]\n"))
    (tmp_path / "netlist.stamp").unlink()
    with pytest.raises(
        SynthesisError, match=r"net core\S*\[2\] has two drivers, core\.one\.\S+\.Q and core\.one\.\S+\.Q$"
    ):
        netlist(Pair(), directory=tmp_path)
    assert not (tmp_path / "netlist.stamp").exists()


def test_area_and_clock_of_an_adder(tmp_path):
    done = synthesise(Adder(), "adder", directory=tmp_path, seeds=(1, 2), workers=2)
    area = done.area
    assert (area.carry, area.ff, area.ebr, area.mult, area.dpr16x4) == (8, 16, 0, 0, 0)
    # Two COMB in a carry cell; nextpnr may add feed-ins and constants of its own, a handful at most.
    assert 16 <= area.comb - area.lut4 <= 16 + 6
    assert [r.seed for r in done.routes] == [1, 2]
    assert all(150 < r.fmax < 700 for r in done.routes)
    # Both ends of the longest path are registers, of the harness or of the core; never a pin.
    assert re.search(r" -> .*: \d+ levels, [\d.]+ ns = [\d.]+ logic \+ [\d.]+ wire", done.path)
    nanoseconds = float(re.search(r"([\d.]+) ns", done.path)[1])
    assert min(r.fmax for r in done.routes) == pytest.approx(1000 / nanoseconds, rel=0.01)
    assert json.loads(json.dumps(done.as_json()))["fmax"] == done.fmax


def test_placers(tmp_path):
    made = netlist(Adder(), directory=tmp_path)
    for placer in ("static", "heap"):
        assert route(made, 1, aim=Aim(200, placer=placer)).fmax > 150
        log = (tmp_path / f"route-85k-CABGA756-6-{placer}-200-1.log").read_text()
        assert ("Static placer" in log, "HeAP Placer" in log) == (placer == "static", placer == "heap")
    with pytest.raises(ValueError, match="placer 'sa' is unknown; give static or heap"):
        Aim(placer="sa")


def test_the_router_insists_on_an_aim(tmp_path):
    made = netlist(Adder(), directory=tmp_path)
    assert route(made, 1, aim=Aim(200)).fmax > 150
    assert route(made, 1, aim=Aim(200, insist=True)).fmax >= 200
    logs = {path.name: path.read_text() for path in tmp_path.glob("route-*.log")}
    assert sorted(("insist" in name, "tmgfail=0" in log) for name, log in logs.items()) == [
        (False, False),
        (True, True),
    ]


@pytest.mark.parametrize("size", ["25k", "45k"])
def test_the_clock_has_a_pin_on_every_part(size, tmp_path):
    device = Device(size=size, package="CABGA381")
    made = netlist(Adder(), directory=tmp_path)
    assert device.clock_site not in made.json.read_text()
    assert route(made, 1, device=device).fmax > 150


def test_wires_are_told_apart_from_bits_of_others():
    # Not ports, nor a name that stands alone.
    core = """\
module core(clk, i, \\i[0] , o);
  input clk;
  input [3:0] i;
  input \\i[0] ;
  output o;
  wire [3:0] \\w.x ;
  wire [1:0] \\w.x[1] ;
  reg [1:0] \\w.x[0][1]  = 2'h0;
  wire \\alone[1] ;
  assign \\w.x[1]  = \\w.x [3:2];
  assign \\alone[1]  = \\w.x[1] [0] ^ \\i[0] ^ i[1];
endmodule

module \\core.part (\\w.x[1] );
  input [1:0] \\w.x[1] ;
endmodule
"""
    assert unambiguous(core) == core.replace("\\w.x[1] ", "\\w.x(1) ", 3)


def test_a_multiplier_is_one_dsp_block(tmp_path):
    made = netlist(Multiplier(signed(18), signed(18)), directory=tmp_path)
    assert made.area.mult == 1
    assert made.area.lut4 == 0


def test_the_clock_is_the_median():
    clocks = (90.0, 110.0, 100.0)
    routes = tuple(Route(seed=k, fmax=f, path=f"path {k}", comb=0) for k, f in enumerate(clocks))
    area = Area(lut4=0, carry=0, ff=0, dpr16x4=0, ebr=0, mult=0)
    done = Synthesis(name="x", device="d", area=area, routes=routes)
    assert (done.fmax, done.path) == (100.0, "path 2")
    assert (replace(done, routes=routes[:2]).fmax, replace(done, routes=routes[:2]).path) == (100.0, "path 0")


def test_what_is_done_is_not_done_again(tmp_path):
    made = netlist(Adder(), directory=tmp_path)
    (tmp_path / "route-85k-CABGA756-6-static-150-7.json").write_text(
        json.dumps(
            {
                "fmax": {"clk": {"achieved": 123.4, "constraint": 150.0}},
                "critical_paths": [],
                "utilization": {"TRELLIS_COMB": {"used": 20, "available": 1}},
            }
        )
    )
    assert route(made, 7).fmax == 123.4
    assert netlist(Adder(), directory=tmp_path) == made
    assert route(made, 7).fmax == 123.4
    netlist(Multiplier(signed(18), signed(18)), directory=tmp_path)
    assert not list(tmp_path.glob("route-*"))


def test_the_stamp_is_of_the_design(monkeypatch):
    assert stamp(Pair()) == stamp(Pair())  # names and order are the same whenever it is made
    assert stamp(Pair()) != stamp(Adder())
    before = stamp(Pair())
    inner = Adder.elaborate

    def other(self, platform):
        m = inner(self, platform)
        m.d.sync += Signal(name="another").eq(self.a[0])
        return m

    monkeypatch.setattr(Adder, "elaborate", other)
    assert stamp(Pair()) != before
    monkeypatch.undo()
    monkeypatch.setattr("pullback.gen.synthesis.tool_versions", lambda: {"yosys": "0", "nextpnr": "0"})
    assert stamp(Pair()) != before


def test_a_failing_tool_is_named_with_its_log(tmp_path):
    made = netlist(Adder(), directory=tmp_path)
    made.json.write_text(made.json.read_text().replace('"TRELLIS_FF"', '"TRELLIS_NOTHING"'))
    with pytest.raises(SynthesisError, match=r"nextpnr failed .*route-.*-3\.log ends"):
        route(made, 3)


@pytest.mark.parametrize("wrong", [{"size": "12k"}, {"speed": 5}])
def test_an_unknown_device_is_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        Device(**wrong)


def test_a_failing_yosys_is_named_with_what_it_said(tmp_path):
    """Also after ABC, in which what it says gets lost."""
    (tmp_path / "adder.v").write_text(verilog(Adder()))
    script = "read_verilog adder.v; synth_ecp5 -top core; read_rtlil nothing.il"
    with pytest.raises(
        SynthesisError, match=r"yosys failed with status 1; .*yosys\.log ends:(?s:.*)ERROR: .*nothing"
    ):
        run_tool("yosys", "-p", script, directory=tmp_path, log="yosys.log")


def test_no_seed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="seed"):
        synthesise(Adder(), "adder", directory=tmp_path, seeds=())
