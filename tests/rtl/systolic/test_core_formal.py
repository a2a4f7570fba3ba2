# amaranth: UnusedElaboratable=no
"""Parts of the array's core proved by induction: packets, their ends, the programme's bounds, commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from amaranth.hdl import (
    Array,
    Assert,
    Assume,
    Cat,
    Const,
    Fragment,
    Module,
    Mux,
    ResetSignal,
    Shape,
    Signal,
    Value,
)
from amaranth.lib import data

from pullback.rtl.bus.register_file import RegisterFile
from pullback.rtl.stream.enable import COPIES
from pullback.rtl.systolic import control
from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.control import ArrayControl
from pullback.rtl.systolic.descriptor import WORD, Kind
from pullback.rtl.systolic.packets import HEADER, Closer, Loader
from pullback.rtl.systolic.programme import Programme
from pullback.rtl.systolic.registers import ARRAY_REGISTERS
from pullback.rtl.systolic.walk import Loops

from ..stream.formal import QueueProof, prove, signal_of, with_fault

pytestmark = pytest.mark.formal

BUILD = UnitBuild(array=ArrayBuild(rows=2, columns=2), memory=4, sums=2, masks=2, count=4, programme=40)


class EdgeProof(QueueProof):
    """What the proofs here share: no reset, and offers that stay."""

    depth = 2


class LoaderProof(EdgeProof):
    """Rows go where the header says, each beat once and only its operands; what is wrong is told and goes nowhere.

    The specification keeps the header's beats in their order, and counts rows and columns: the address of a beat is
    ``at + stride row + column`` modulo the memory's size, a product, where the hardware adds.
    """

    def __init__(self, dut: Loader | None = None) -> None:
        super().__init__()
        self._dut = dut or Loader(BUILD)

    def build(self) -> Module:
        m = Module()
        dut, lanes, elements = self._dut, BUILD.lanes, BUILD.elements
        m.submodules.dut = inside = Fragment.get(dut.elaborate(None), None)
        m.d.comb += Assume(~ResetSignal("sync"))
        i, o = dut.i, dut.o
        m.d.comb += [
            i.valid.eq(self.free("i_valid")),
            i.payload.data.eq(self.free("i_data", dut.width)),
            i.payload.last.eq(self.free("i_last")),
            o.ready.eq(self.free("o_ready")),
        ]
        self.stays(m, i.valid, i.ready, i.payload.as_value(), "i", Assume)
        self.stays(m, o.valid, o.ready, o.payload.as_value(), "o", Assert)
        taken, last = i.valid & i.ready, i.payload.last

        # The specification.
        beats = -(-HEADER.size // dut.width)
        words = Array([Signal(dut.width, name=f"word_{k}") for k in range(beats)])
        count, whole, judged = Signal(range(beats)), Signal(), Signal()
        header = data.View(HEADER, Signal(HEADER.size, name="header"))
        m.d.comb += header.as_value().eq(Cat(words))
        row, column = Signal(range(elements)), Signal(range(elements))
        bad, ends = Signal(), Signal()
        m.d.comb += [
            bad.eq((header.to > 2) | (header.columns == 0) | (header.columns > elements)),
            ends.eq(column + lanes >= header.columns),
        ]
        torn, refused, offers = Signal(), Signal(), Signal()
        with m.If(~whole):
            m.d.comb += [Assert(i.ready, "a header waits"), torn.eq(taken & last)]
            with m.If(taken):
                m.d.sync += [words[count].eq(i.payload.data), count.eq(Mux(last, 0, count + 1))]
                with m.If((count == beats - 1) & ~last):
                    m.d.sync += [whole.eq(1), judged.eq(0), count.eq(0)]
        with m.Elif(~judged):
            m.d.comb += [Assert(~i.ready, "a beat is lost"), refused.eq(bad)]
            m.d.sync += [judged.eq(1), row.eq(0), column.eq(0)]
        with m.Elif(bad):
            m.d.comb += Assert(i.ready, "a packet that is discarded waits")
        with m.Else():
            m.d.comb += [
                offers.eq(i.valid),
                torn.eq(taken & last & ~ends),
                Assert(taken == (o.valid & o.ready), "a beat lost or doubled"),
            ]
            with m.If(taken):
                m.d.sync += [column.eq(Mux(ends, 0, column + lanes)), row.eq(row + ends)]
        with m.If(whole & judged & taken & last):
            m.d.sync += whole.eq(0)
        m.d.comb += [
            Assert(o.valid == offers, "a beat is offered"),
            Assert(dut.torn == torn, "torn"),
            Assert(dut.header == refused, "header"),
        ]
        size = dut.width // lanes
        with m.If(o.valid):
            m.d.comb += [
                Assert(o.payload.to.as_value() == header.to, "memory"),
                Assert(o.payload.at == (header.at + header.stride * row + column)[:3], "address"),
                *(Assert(o.payload.on[k] == (column + k < header.columns), "lane") for k in range(lanes)),
                *(
                    Assert(
                        o.payload.row[k].as_unsigned() == i.payload.data[k * size : (k + 1) * size], "operand"
                    )
                    for k in range(lanes)
                ),
            ]

        # The induction.
        its = {
            name: signal_of(inside, name)
            for name in ("fsm_state", "bits", "left", "line", "stride", "tail", "runs", "at", "run", "final")
        }
        self.lemma(m, its["fsm_state"] == Mux(~whole, 0, Mux(~judged, 1, Mux(bad, 3, 2))))
        self.lemma(m, (count < beats) & (~whole | (count == 0)))
        self.lemma(m, whole | (its["left"] == beats - 1 - count))
        self.lemma(m, ~whole | (its["bits"] == Cat(words)))
        for k in range(1, beats):
            came = its["bits"][(beats - k) * dut.width :]
            self.lemma(m, whole | (count != k) | (came == Cat(list(words)[:k])))
        rows = whole & judged & ~bad
        less_one = (header.columns - 1)[:3]
        self.lemma(m, ~(whole & judged) | (its["left"] == beats - 1))
        self.lemma(m, ~rows | ((column < header.columns) & ~column[0]))
        self.lemma(m, ~rows | (its["stride"] == header.stride[:3]))
        self.lemma(m, ~rows | (its["line"] == (header.at + header.stride * row)[:3]))
        self.lemma(m, ~rows | (its["at"] == (its["line"] + column)[:3]))
        self.lemma(m, ~rows | (its["runs"] == less_one[1:]))
        self.lemma(m, ~rows | (its["run"] == (less_one - column)[1:3]))
        self.lemma(m, ~rows | (its["final"] == (its["run"] == 0)))
        self.lemma(m, ~rows | (its["tail"] == Cat(1, less_one[0])))
        return m


class CloserProof(EdgeProof):
    """Rows pass as they are; a packet that a halt cuts off is ended by one row of zeros, before any other."""

    def __init__(self, dut: Closer | None = None) -> None:
        super().__init__()
        self._dut = dut or Closer(2)

    def build(self) -> Module:
        m = Module()
        dut = self._dut
        m.submodules.dut = inside = Fragment.get(dut.elaborate(None), None)
        m.d.comb += Assume(~ResetSignal("sync"))
        i, o = dut.i, dut.o
        m.d.comb += [
            i.valid.eq(self.free("i_valid")),
            i.payload.eq(self.free("i_payload", 2)),
            dut.last.eq(self.free("i_last")),
            dut.halt.eq(self.free("halt")),
            o.ready.eq(self.free("o_ready")),
        ]
        # A halt lasts two clocks at least, and nothing is offered but in its first.
        halted, long = Signal(), Signal()  # for a clock, for two
        m.d.sync += [halted.eq(dut.halt), long.eq(dut.halt & halted)]
        m.d.comb += [Assume(~halted | long | dut.halt), Assume(~(dut.halt & halted) | ~i.valid)]
        waits, held = Signal(), Signal(3)
        m.d.sync += [waits.eq(i.valid & ~i.ready & ~dut.halt), held.eq(Cat(i.payload, dut.last))]
        with m.If(waits):
            m.d.comb += Assume(i.valid & (Cat(i.payload, dut.last) == held))

        moves = o.valid & o.ready
        begun, cut = Signal(), Signal()
        with m.If(moves):
            m.d.sync += begun.eq(~o.payload.last)
        with m.If(cut & moves):
            m.d.sync += cut.eq(0)
        with m.Elif(dut.halt & ~i.valid & begun):
            m.d.sync += cut.eq(1)
        with m.If(dut.halt & long & begun):
            m.d.comb += Assert(o.valid & o.payload.last, "a packet that was cut off is not ended")
        with m.If(cut):
            m.d.comb += [
                Assert(o.valid & o.payload.last, "what ends a packet is taken back"),
                Assert(Value.cast(o.payload.row) == 0, "not by zeros"),
                Assert(~i.ready, "a row is lost"),
            ]
        with m.Else():
            m.d.comb += [
                Assert(o.valid == i.valid, "a row that nobody sent"),
                Assert(Cat(o.payload.row, o.payload.last) == Cat(i.payload, dut.last), "another row"),
                Assert(i.ready == o.ready, "a row lost or doubled"),
            ]
        wait_o, held_o = Signal(), Signal(3)
        m.d.sync += [wait_o.eq(o.valid & ~o.ready & (~dut.halt | cut)), held_o.eq(o.payload.as_value())]
        with m.If(wait_o):
            m.d.comb += Assert(o.valid & (o.payload.as_value() == held_o), "an offer withdrawn or changed")
        self.lemma(m, signal_of(inside, "begun") == begun)
        self.lemma(m, signal_of(inside, "closes") == cut)
        self.lemma(m, ~cut | begun)
        return m


class ProgrammeProof(EdgeProof):
    """No word beyond the end is read as one of a descriptor, no unknown kind is offered, and a programme ends.

    Whatever stands in the memory, whenever it is written, and however long a descriptor waits.
    """

    depth = 3

    def __init__(self, dut: Programme | None = None) -> None:
        super().__init__()
        self._dut = dut or Programme(BUILD)

    def build(self) -> Module:
        m = Module()
        dut, words, depth = self._dut, self._dut.words, BUILD.programme
        m.submodules.dut = inside = Fragment.get(dut.elaborate(None), None)
        m.d.comb += Assume(~ResetSignal("sync"))
        m.d.comb += [
            dut.write.eq(self.free("write")),
            dut.write_row.eq(self.free("write_row", len(dut.write_row))),
            dut.write_data.eq(self.free("write_data", WORD)),
            dut.go.eq(self.free("go") & ~dut.running),
            dut.start.eq(self.free("start", len(dut.start))),
            dut.taken.eq(self.free("taken") & dut.offered),
        ]
        its = {
            name: signal_of(inside, name)
            for name in ("row", "left", "reads", "arrives", "begins", "ends", "beyond", "bits", "strange")
        }
        row, left, reads, beyond = its["row"], its["left"], its["reads"], its["beyond"]
        read = reads & ~beyond  # a word of a descriptor
        with m.If(read):
            m.d.comb += Assert(row < depth, "a word beyond the end")
        with m.If(dut.offered):
            kinds = [dut.descriptor.as_value()[: Shape.cast(Kind).width] == kind.value for kind in Kind]
            m.d.comb += Assert(Cat(kinds).any(), "a kind that does not exist")
            m.d.comb += Assert(dut.running, "offered after the end")
        self.stays(m, dut.offered, dut.taken, dut.descriptor.as_value(), "offer", Assert)
        m.d.comb += Assert((dut.unknown + dut.over + dut.taken) <= 1, "two ends at once")
        was_running, ended = Signal(), Signal()
        m.d.sync += [
            was_running.eq(dut.running),
            ended.eq(dut.unknown | dut.over | (dut.taken & dut.descriptor.last)),
        ]
        m.d.comb += Assert((was_running & ~dut.running) == ended, "an end without a reason, or none with one")
        waits = Signal(range(words + 5 + Loops.ahead))
        m.d.sync += waits.eq(Mux(dut.running & ~dut.offered, waits + 1, 0))
        m.d.comb += Assert(waits <= words + 2 + Loops.ahead, "a programme that neither goes on nor ends")

        # Where a descriptor is: read, behind the RAM's registers, in the shift register.
        arrives, begins, ends = its["arrives"], its["begins"], its["ends"]
        stands = Cat(signal_of(inside, f"stands_{k}") for k in range(1, Loops.ahead + 1))
        came = Signal(range(words + 1))
        m.d.sync += came.eq(Mux(dut.go | dut.taken, 0, came + arrives[1]))
        reading = dut.running & ~dut.offered
        behind = Signal(range(words + 1))
        m.d.comb += behind.eq(came + arrives[0] + arrives[1])
        self.lemma(m, ~reads | reading)
        # Copies of an enable agree but in the clock after reset, in which nothing is there.
        begun = Signal()
        m.d.sync += begun.eq(1)
        self.lemma(m, begun | ~(dut.running | dut.offered | arrives.any()))
        for k in range(2 * COPIES):
            copy = signal_of(inside, f"arrives_{k}")
            self.lemma(m, ~begun | ((~copy if k >= COPIES else copy) == arrives[1]))
        self.lemma(m, ~ends.any() | reading)
        self.lemma(m, dut.running | ~arrives[0])
        self.lemma(m, ~dut.offered | ~arrives.any())
        self.lemma(m, ~reads | ((behind + left + 1 == words) & (left < words) & (behind < words)))
        self.lemma(m, ~reads | ~(ends.any() | stands.any()))
        self.lemma(m, ~stands.any() | (reading & ~its["strange"]))
        # Once all is read the last words are on their way, or all stand, or the programme ends.
        self.lemma(m, ~(reading & ~reads) | (behind == words))
        whole = (came == words) & ~ends.any() & Cat(stands == 1 << k for k in range(len(stands))).any()
        self.lemma(m, ~(reading & ~reads) | whole | ((came < words) & ends.any() & ~stands.any()))
        for k, before in enumerate((came + arrives[1], came)):
            self.lemma(m, ~reading | (begins[k] == (arrives[k] & (before == 0))))
            self.lemma(m, ~reading | (ends[k] == (arrives[k] & (before + 1 == words))))
        self.lemma(m, ~reads | (waits == words - 1 - left))
        late = sum((Mux(bit, k, 0) for k, bit in enumerate(Cat(ends, stands))), Const(0))
        self.lemma(m, ~(reading & ~reads) | (waits == words + late))
        self.lemma(
            m, (waits <= words + 2 + Loops.ahead) & (came <= words) & (beyond | ~dut.running | (row < depth))
        )
        for k in range(1, words + 1):
            kind = its["bits"][(words - k) * WORD :][: Shape.cast(Kind).width]
            known = Cat(kind == each.value for each in Kind).any()
            self.lemma(m, ~dut.running | (came != k) | (its["strange"] == ~known))
        self.lemma(m, ~dut.offered | (~its["strange"] & (came == words)))
        return m


class ControlProof(EdgeProof):
    """A programme is begun only where one fits, by an array that stands still, and a halt is what a host asked for.

    Whatever is written whenever: the registers are those of `RegisterFile`, which has a proof of its own.
    """

    def __init__(self, dut: ArrayControl | None = None) -> None:
        super().__init__()
        self._dut = dut or ArrayControl(BUILD)

    def build(self) -> Module:
        m = Module()
        dut = self._dut
        count = sum(register.access != "r" for register in ARRAY_REGISTERS)
        writes, given = self.free("writes", count), self.free("given", 32)

        files: list[RegisterFile] = []

        class AnyWrites(RegisterFile):
            def __init__(self, *arguments, **options) -> None:
                super().__init__(*arguments, **options)
                files.append(self)

            def elaborate(self, platform) -> Module:
                m = Module()
                m.d.comb += [self.writes.as_value().eq(writes), self.data.eq(given)]
                return m

        with mock.patch.object(control, "RegisterFile", AnyWrites):
            m.submodules.dut = inside = dut.elaborate(None)
        m.d.comb += Assume(~ResetSignal("sync"))
        quiet = Signal(2)  # clocks since a write
        m.d.sync += quiet.eq(Mux(writes.any(), 0, Mux(quiet == 3, 3, quiet + 1)))
        m.d.comb += [Assume(~writes.any() | (quiet >= 2)), Assume((writes & (writes - 1)) == 0)]
        # A unit is busy from the clock after go, for as long as it likes, and not once it is halted.
        busy = Signal()
        m.d.comb += dut.busy.eq(busy)
        m.d.sync += busy.eq(~dut.halt & (dut.go | (busy & self.free("goes_on"))))
        command = files[0].writes.CONTROL
        asked, stopped, was_stopped = Signal(), Signal(), Signal(init=1)
        m.d.sync += [
            asked.eq(command & given[0] & ~given[1]),
            stopped.eq(Mux(command, given[1], stopped)),
            was_stopped.eq(stopped),
        ]
        with m.If(dut.go):
            m.d.comb += [
                Assert(asked, "go unasked"),
                Assert(~busy, "go while busy"),
                Assert(~dut.halt, "go while halted"),
                Assert(dut.start <= BUILD.programme - dut.map.descriptor, "a start where nothing fits"),
            ]
        its = {name: signal_of(inside, name) for name in ("stop", "start", "outside")}
        m.d.comb += Assert(dut.halt == was_stopped, "a halt nobody asked for, or none")
        # The induction.
        self.lemma(m, its["stop"] == stopped)
        fits = its["start"] <= BUILD.programme - dut.map.descriptor
        self.lemma(m, (quiet == 0) | (its["outside"] == ~fits))
        self.lemma(m, ~dut.go | ((quiet == 0) & fits))
        self.lemma(m, ~(dut.go & busy))
        return m


PROOFS = {"loader": LoaderProof, "closer": CloserProof, "programme": ProgrammeProof, "control": ControlProof}


@pytest.mark.parametrize("name", PROOFS)
def test_proved(name, tmp_path):
    proof = PROOFS[name]()
    verdict = prove(proof, tmp_path, depth=proof.depth)
    assert verdict.proved, verdict.log


def faulty(proof: type[EdgeProof], part: type, argument: Any, *fault: Any) -> Callable[[], EdgeProof]:
    return lambda: proof(with_fault(part, *fault)(argument))


FAULTS = {
    "the last run of a row counts whole": (
        faulty(LoaderProof, Loader, BUILD, "sync", "tail", lambda dut: ~0),
        10,
    ),
    "rows without a stride": (
        faulty(LoaderProof, Loader, BUILD, "comb", "following", lambda dut: dut.o.payload.at + BUILD.lanes),
        11,
    ),
    "a header that is refused is taken": (
        faulty(LoaderProof, Loader, BUILD, "comb", "good", lambda dut: 1),
        9,
    ),
    "a packet is left open": (faulty(CloserProof, Closer, 2, "sync", "closes", lambda dut: 0), 6),
    "the programme reads on around the end": (
        faulty(ProgrammeProof, Programme, BUILD, "sync", "beyond", lambda dut: 0),
        6,
    ),
    "a kind that does not exist is offered": (
        faulty(ProgrammeProof, Programme, BUILD, "sync", "strange", lambda dut: 0),
        18,
    ),
    "a start that is not looked at": (
        faulty(ControlProof, ArrayControl, BUILD, "sync", "outside", lambda dut: 0),
        14,
    ),
    "a go that does not look whether a programme runs": (
        faulty(ControlProof, ArrayControl, BUILD, "comb", "free", lambda dut: 1),
        14,
    ),
}


@pytest.mark.parametrize(
    "name",
    [name if "open" in name else pytest.param(name, marks=pytest.mark.slow) for name in FAULTS],
)
def test_fault_is_refuted(name, tmp_path):
    """By a counterexample from reset to a broken property of the specification, not of a lemma."""
    make, depth = FAULTS[name]
    verdict = prove(make(), tmp_path, depth=depth, faulty=True)
    print(name, "->", verdict.violated)
    assert not verdict.proved
    assert verdict.violated, verdict.log
