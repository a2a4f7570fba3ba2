# amaranth: UnusedElaboratable=no
"""The memory master: runs of any length from anywhere, against somebody else's memory; its bursts by induction."""

from __future__ import annotations

from pathlib import Path

import pytest
from amaranth.hdl import Assert, Assume, Cat, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from pullback.rtl.bus.axi4_master import (
    AXI4Reader,
    AXI4Writer,
    Bursts,
    MemoryPort,
    axi4_read_members,
    axi4_write_members,
)
from pullback.sim.bench.runner import run_bench
from pullback.sim.generated import generated

from ..stream.formal import QueueProof, prove, signal_of, with_fault

TESTS = 5


class Master(wiring.Component):
    """A reader and a writer on one port."""

    def __init__(self, port: MemoryPort) -> None:
        self._reader, self._writer, self._port = AXI4Reader(port), AXI4Writer(port), port
        super().__init__(
            {
                **axi4_read_members(port),
                **axi4_write_members(port),
                "read": In(stream.Signature(port.run)),
                "write": In(stream.Signature(port.run)),
                "o": Out(stream.Signature(data.StructLayout({"data": port.width, "last": 1}))),
                "i": In(stream.Signature(data.StructLayout({"data": port.width, "strobe": port.bytes}))),
                "clear": In(1),
                "idle": Out(1),
                **{
                    f"{what}_{side}": Out(width)
                    for side in ("read", "write")
                    for what, width in (("error", 1), ("response", 2), ("address", port.address))
                },
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.reader, m.submodules.writer = reader, writer = self._reader, self._writer
        for part, members in (
            (reader, axi4_read_members(self._port)),
            (writer, axi4_write_members(self._port)),
        ):
            for name, member in members.items():
                inner, outer = getattr(part, name), getattr(self, name)
                m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        wiring.connect(m, wiring.flipped(self.read), reader.run)
        wiring.connect(m, wiring.flipped(self.write), writer.run)
        wiring.connect(m, reader.o, wiring.flipped(self.o))
        wiring.connect(m, wiring.flipped(self.i), writer.i)
        m.d.comb += self.idle.eq(reader.idle & writer.idle)
        for side, part in (("read", reader), ("write", writer)):
            m.d.comb += [
                part.clear.eq(self.clear),
                getattr(self, f"error_{side}").eq(part.error),
                getattr(self, f"response_{side}").eq(part.error_response),
                getattr(self, f"address_{side}").eq(part.error_address),
            ]
        return m


@pytest.mark.parametrize(
    ("width", "longest", "simulator"),
    [
        (32, 16, "icarus"),
        pytest.param(8, 256, "icarus", marks=pytest.mark.slow),
        pytest.param(128, 1, "icarus", marks=pytest.mark.slow),
        pytest.param(64, 4, "verilator", marks=pytest.mark.slow),
    ],
)
def test_runs(width, longest, simulator, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # the runner hands its path on
    port = MemoryPort(width=width, address=16, longest=longest, beats=10)
    sources = generated(f"axi4 master of a test {port}", lambda: Master(port))[0]
    variables = {"PULLBACK_WIDTH": str(width), "PULLBACK_LONGEST": str(longest)}
    assert run_bench(sources, "axi4_master_bench", simulator=simulator, environment=variables) == TESTS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 24}, "width=24; give 8, 16"),
        ({"width": 2048}, "width=2048; give"),
        ({"address": 11}, "address=11; give 12 to 64"),
        ({"longest": 12}, "longest=12; give a power of two up to 256 beats of 64 bits"),
        ({"longest": 512}, "longest=512; give a power of two up to 256"),
        ({"longest": 64, "width": 1024}, "longest=64; give a power of two up to 32 beats of 1024 bits"),
        ({"beats": 0}, "beats=0; give 1 to 32"),
    ],
)
def test_bad_ports_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MemoryPort(**options)


@pytest.mark.parametrize("part", [AXI4Reader, AXI4Writer])
def test_bad_numbers_of_bursts_are_named(part):
    with pytest.raises(ValueError, match="outstanding=0; give 1 to 64 bursts"):
        part(MemoryPort(), outstanding=0)


class BurstsProof(QueueProof):
    """Bursts lie one behind the other from a run's begin to its end, none longer than may be or across 4 KiB.

    The specification counts beats to come, and the address of the next one, from what was offered.
    """

    def __init__(self, make: type[Bursts] = Bursts) -> None:
        super().__init__(capacity=0, patience=0)
        self._port = MemoryPort(width=32, address=14, longest=4, beats=5)
        self._dut = make(self._port)

    def build(self) -> Module:
        m = Module()
        dut, port = self._dut, self._port
        m.submodules.dut = inside = dut.elaborate(None)
        m.d.comb += Assume(~ResetSignal("sync"))
        m.d.comb += [
            dut.i.valid.eq(self.free("i_valid")),
            dut.i.payload.as_value().eq(self.free("i_payload", port.run.size)),
            dut.o.ready.eq(self.free("o_ready")),
        ]
        run, burst = dut.i.payload, dut.o.payload
        ends = (run.address >> port.size) + run.beats
        m.d.comb += Assume(~dut.i.valid | ((run.beats != 0) & (ends <= 1 << (port.address - port.size))))
        open_, at, left, waits = Signal(), Signal(port.address), Signal(port.beats), Signal(3)
        number = Signal(9)
        m.d.comb += number.eq(burst.length + 1)
        with m.If(dut.i.valid & dut.i.ready):
            m.d.comb += Assert(~open_, "a run within a run")
            m.d.sync += [
                open_.eq(1),
                at.eq(run.address >> port.size << port.size),
                left.eq(run.beats),
            ]
        with m.If(dut.o.valid):
            m.d.comb += [
                Assert(open_ & (burst.address == at), "a burst that does not follow"),
                Assert((number <= left) & (number <= port.longest), "a burst too long"),
                Assert(burst.final == (number == left), "the last burst of a run"),
                Assert((burst.address[:12] + number * port.bytes) <= 4096, "across 4 KiB"),
            ]
            with m.If(dut.o.ready):
                m.d.sync += [at.eq(at + number * port.bytes), left.eq(left - number), open_.eq(~burst.final)]
        m.d.comb += Assert(dut.idle == ~open_, "idle")
        m.d.sync += waits.eq(Mux(open_ & ~dut.o.valid, waits + 1, 0))
        m.d.comb += Assert(waits <= 1, "no burst is offered")
        stalls, before = Signal(), Signal(port.burst.size)
        m.d.sync += [stalls.eq(dut.o.valid & ~dut.o.ready), before.eq(Value.cast(burst))]
        with m.If(stalls):
            m.d.comb += Assert(dut.o.valid & (Value.cast(burst) == before), "an offer withdrawn or changed")
        its = {name: signal_of(inside, name) for name in ("at", "left", "fsm_state", "number", "final")}
        place = its["at"][: port.longest.bit_length() - 1]
        room = port.longest - place
        fits = its["left"] <= room
        self.lemma(m, (its["fsm_state"] <= 2) & (open_ == (its["fsm_state"] != 0)))
        self.lemma(
            m, ~open_ | ((Cat(Signal(port.size), its["at"]) == at) & (its["left"] == left) & (left != 0))
        )
        self.lemma(
            m,
            (its["fsm_state"] != 2)
            | ((its["number"] == Mux(fits, its["left"], room)) & (its["final"] == fits)),
        )
        self.lemma(m, (its["fsm_state"] != 1) | (waits == 0))
        self.lemma(m, (its["fsm_state"] != 2) | (waits == 1) | dut.o.valid)
        return m


@pytest.mark.formal
def test_bursts_are_proved(tmp_path):
    verdict = prove(BurstsProof(), tmp_path, depth=2)
    assert verdict.proved, verdict.log


@pytest.mark.formal
def test_a_burst_across_the_boundary_is_refuted(tmp_path):
    anywhere = with_fault(Bursts, "comb", "room", lambda dut: dut._port.longest)
    verdict = prove(BurstsProof(anywhere), tmp_path, depth=8, faulty=True)
    assert not verdict.proved
    assert (
        verdict.violated == 'Assert((burst.address[:12] + number * port.bytes) <= 4096, "across 4 KiB"),'
    ), verdict.log
