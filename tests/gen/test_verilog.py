"""Generated text: deterministic, self-contained, and understood by Icarus alike in both forms."""

import json
import os
import re
import subprocess
import sys

import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from pullback.gen.verilog import Port, ports, ports_json, rtlil, simulation_verilog, verilog
from pullback.rtl.isp.pipeline import isp
from pullback.rtl.pipeline import Build
from pullback.rtl.pipeline.core import VJPCore
from pullback.rtl.stream.fifo import Fifo


class Accumulator(wiring.Component):
    """Every kind of port, a submodule, a memory, and a constant."""

    def __init__(self):
        super().__init__(
            {
                "i": In(stream.Signature(signed(4))),
                "o": Out(stream.Signature(data.StructLayout({"a": 3, "b": signed(5)}))),
                "none": In(0),
                "lane": Out(signed(7)).array(2),
                "fixed": Out(4),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=4, init=[3, 1, 4, 1])
        read = memory.read_port()
        with m.If(self.i.valid):
            m.d.sync += self.lane[0].eq(self.lane[0] + self.i.payload)
        m.d.comb += [read.addr.eq(self.lane[0][:2]), read.en.eq(1), self.o.payload.eq(read.data)]
        m.d.comb += [self.i.ready.eq(self.o.ready), self.o.valid.eq(self.i.valid)]
        m.d.comb += self.lane[1].eq(-self.lane[0])
        never = Signal()
        with m.If(never):
            m.d.comb += self.fixed.eq(1)
        with m.Else():
            m.d.comb += self.fixed.eq(9)
        return m


class Wire(wiring.Component):
    """Purely combinational: no register asks for a clock."""

    def __init__(self):
        super().__init__({"a": In(3), "b": Out(3)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.b.eq(~self.a)
        return m


EXPECTED = {
    "clk": Port("in", 1, False),
    "rst": Port("in", 1, False),
    "i__payload": Port("in", 4, True),
    "i__valid": Port("in", 1, False),
    "i__ready": Port("out", 1, False),
    "o__payload": Port("out", 8, False),
    "o__valid": Port("out", 1, False),
    "o__ready": Port("in", 1, False),
    "lane__0": Port("out", 7, True),
    "lane__1": Port("out", 7, True),
    "fixed": Port("out", 4, False),
}


def declared(text, name):
    """Ports as the top module of a Verilog text declares them: name -> (direction, width)."""
    body = text[text.index(f"module {name}(") :]
    body = body[: body.index("endmodule")]
    found = re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);$", body, re.MULTILINE)
    return {port: ("in" if way == "input" else "out", int(high or 0) + 1) for way, high, port in found}


def test_ports_describe_the_component():
    assert ports(Accumulator()) == EXPECTED
    assert tuple(ports(Accumulator())["lane__0"]) == ("out", 7, True)


def flat(component, name="core"):
    return simulation_verilog(component, name, flat=True)


@pytest.mark.parametrize("write", [verilog, simulation_verilog, flat])
@pytest.mark.parametrize("component", [Accumulator, Wire])
def test_ports_are_those_of_the_text(write, component):
    described = {name: (p.direction, p.width) for name, p in ports(component()).items()}
    assert declared(write(component(), "unit"), "unit") == described


def test_ports_as_json():
    text = ports_json(Accumulator(), "unit")
    assert text.endswith("}\n")
    expected = {name: vars(port) for name, port in EXPECTED.items()}
    assert json.loads(text) == {"module": "unit", "ports": expected}


def test_text_is_the_same_from_rtlil_and_from_the_component():
    text = rtlil(Accumulator(), "unit")
    assert verilog(text) == verilog(Accumulator(), "unit")
    assert simulation_verilog(text) == simulation_verilog(Accumulator(), "unit")


def test_text_does_not_depend_on_hash_seed_directory_or_other_yosys(tmp_path):
    program = (
        "import importlib.util as u;"
        f"s = u.spec_from_file_location('t', {__file__!r});"
        "t = u.module_from_spec(s); s.loader.exec_module(t);"
        "print(t.verilog(t.Accumulator()), t.simulation_verilog(t.Accumulator()), sep='')"
    )
    (tmp_path / "yosys").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "yosys").chmod(0o755)
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed, "AMARANTH_USE_YOSYS": "system", "PATH": str(tmp_path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert texts == {verilog(Accumulator()) + simulation_verilog(Accumulator()) + "\n"}


def test_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("AMARANTH_USE_YOSYS", "system")
    verilog(Wire())
    assert os.environ["AMARANTH_USE_YOSYS"] == "system"
    monkeypatch.delenv("AMARANTH_USE_YOSYS")
    verilog(Wire())
    assert "AMARANTH_USE_YOSYS" not in os.environ


def test_no_paths_of_this_machine_in_the_text():
    for text in (verilog(Accumulator()), simulation_verilog(Accumulator()), rtlil(Accumulator())):
        assert ".py" not in text
        assert os.path.dirname(__file__) not in text


@pytest.mark.parametrize("demosaic,lanes", [("filter_bank", 1), ("hamilton_adams", 2)])
def test_every_signal_of_a_core_has_a_name(demosaic, lanes):
    """Amaranth calls a signal ``$signal`` where it cannot tell what the source calls it, as in a tuple."""
    text = rtlil(VJPCore(isp(demosaic), Build(lanes=lanes, max_width=32)))
    assert not re.findall(r"^ *wire .*\\\$signal.*$", text, re.MULTILINE)


def test_flat_text_is_one_module():
    assert len(re.findall("^module ", simulation_verilog(Fifo(8, 4)), re.MULTILINE)) > 1
    assert len(re.findall("^module ", flat(Fifo(8, 4)), re.MULTILINE)) == 1


class Blocks(wiring.Component):
    """Two combinational blocks, one of a register alone, which holds what it starts with while no clock comes."""

    def __init__(self):
        super().__init__({"i": In(1), "a": Out(4), "b": Out(4)})

    def elaborate(self, platform):
        m = Module()
        kept = Signal(init=1)
        m.d.sync += kept.eq(self.i)
        for chosen, output in ((kept, self.a), (self.i, self.b)):
            m.d.comb += output.eq(3)
            with m.If(chosen):
                m.d.comb += output.eq(9)
        return m


def run_blocks(folder, text, standard):
    """What Icarus says of ``Blocks`` after time zero, while ``i`` changes nine times."""
    # Files in .v: what ends in .sv is SystemVerilog, whatever standard is asked for.
    (folder / "unit.v").write_text(text)
    (folder / "bench.v").write_text(
        "module bench; wire [3:0] a, b; reg i = 0; unit unit(.clk(1'b0), .rst(1'b0), .i(i), .a(a), .b(b));"
        ' initial begin #1 $display("settled"); repeat (9) #1 i = ~i; #1 $display("%b %b", a, b); $finish; end'
        " endmodule\n"
    )
    subprocess.run(["iverilog", standard, "-o", "bench", "bench.v", "unit.v"], cwd=folder, check=True)
    said = subprocess.run(["vvp", "bench"], cwd=folder, check=True, capture_output=True, text=True).stdout
    return said.partition("settled\n")[2]


@pytest.mark.parametrize("standard", ["-g2005", "-g2012"])
@pytest.mark.parametrize("write", [simulation_verilog, flat])
def test_simulation_text_escapes_the_x_trap(tmp_path, write, standard):
    """A block whose inputs never change settles under any standard."""
    assert run_blocks(tmp_path, write(Blocks(), "unit"), standard).splitlines()[0] == "1001 1001"


def test_plain_verilog_is_caught_in_the_x_trap(tmp_path):
    """Which is why there is a text for simulators."""
    assert run_blocks(tmp_path, verilog(Blocks(), "unit"), "-g2012").splitlines()[0] == "xxxx 1001"


def test_simulation_text_wakes_a_block_when_its_inputs_change_only(tmp_path):
    """With ``always_comb`` one block that runs wakes all others in Icarus 11, and some cores never come to rest."""
    text = simulation_verilog(Blocks(), "unit")
    for block in (r"^  always @\* begin$", r"^  always_comb begin$"):
        text = re.sub(block, r'\g<0> $display("runs");', text, flags=re.MULTILINE)
    assert text.count("runs") == 3  # of the two, and of what the register takes next
    assert run_blocks(tmp_path, text, "-g2012").count("runs") == 18  # two depend on i


@pytest.mark.parametrize("name", ["", "2fast", "a-b", "core\n", "a b"])
def test_a_name_that_is_no_identifier_is_refused(name):
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        verilog(Wire(), name)
