"""Packets of AXI4-Stream: operands that come in with their address, rows that go out with their end."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, ShapeLike, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..bus.axi4stream import saturated
from ..numeric.format import SQ
from .build import UnitBuild
from .descriptor import Memory
from .unit import load

__all__ = ["HEADER", "Closer", "Loader", "container"]

HEADER = data.StructLayout({"at": 32, "stride": 32, "columns": 24, "to": 8})
"""What a packet of operands begins with: the first row's address, from row to row, operands of a row, memory."""


def container(bits: int) -> int:
    """Bits of a code on AXI4-Stream: whole bytes."""
    return -(-bits // 8) * 8


class Loader(wiring.Component):
    """``memory[at + stride i + j] = X[i, j]``: packets of operands to runs for a memory.

    A packet is a header (`HEADER`, lowest bits first, in ``ceil(96 / width)`` beats; what is left of the last one
    counts for nothing) and rows of ``columns`` operands. A row is ``ceil(columns / lanes)`` beats, of whose last one
    the lower lanes count. ``last`` ends the packet, so nothing says how many rows there are. Addresses and strides are
    modulo the memory's size.

    Operands are containers of whole bytes; a code outside the operand's format saturates. A packet whose header names
    no memory, or rows of none or of more operands than a memory has, is discarded whole.

    One beat a clock, but for a clock behind each header. In reset it discards what comes, and the next beat after it
    begins a packet.

    Parameters
    ----------
    build : UnitBuild

    Members
    -------
    i : In(stream.Signature({"data": width, "last": 1}))
    o : Out(stream.Signature(load(build)))
    header, torn : Out(1)
        In this clock a packet's header is refused; a packet ends within its header or a row.

    Attributes
    ----------
    width : int
        Bits of a beat.
    """

    def __init__(self, build: UnitBuild) -> None:
        self._build = build
        self.width = build.lanes * container(build.array.operand)
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({"data": self.width, "last": 1}))),
                "o": Out(stream.Signature(load(build))),
                "header": Out(1),
                "torn": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        build, lanes = self._build, self._build.lanes
        beats = -(-HEADER.size // self.width)
        bits = Signal(beats * self.width, reset_less=True)
        header = data.View(HEADER, bits[: HEADER.size])
        left = Signal(range(beats), init=beats - 1)

        # Of the packet: where its rows begin, what of a row's last run counts, and its runs but one.
        inside = (lanes - 1).bit_length()
        line = Signal(range(build.elements))
        stride = Signal.like(line)
        tail = Signal(lanes)
        runs = Signal(range(build.memory))
        at = Signal.like(line)
        run = Signal.like(runs)  # runs of the row that follow this one
        final = Signal()  # there are none
        less_one = Signal(len(header.columns))
        m.d.comb += less_one.eq(header.columns - 1)
        good = Signal()
        m.d.comb += good.eq(
            (header.to < Memory.NONE.value) & header.columns.any() & (less_one < build.elements)
        )

        payload = self.o.payload
        size = container(build.array.operand)
        m.d.comb += [
            payload.to.as_value().eq(header.to),
            payload.at.eq(at),
            payload.on.eq(Mux(final, tail, ~0)),
            *(
                payload.row[k].eq(
                    saturated(self.i.payload.data[k * size : (k + 1) * size], SQ(build.array.operand, 0))
                )
                for k in range(lanes)
            ),
        ]
        with m.FSM():
            with m.State("HEADER"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [bits.eq(Cat(bits[self.width :], self.i.payload.data)), left.eq(left - 1)]
                    with m.If(self.i.payload.last):
                        m.d.comb += self.torn.eq(1)
                        m.d.sync += left.eq(beats - 1)
                    with m.Elif(left == 0):
                        m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += [
                    left.eq(beats - 1),
                    line.eq(header.at),
                    at.eq(header.at),
                    stride.eq(header.stride),
                    tail.eq(Cat(less_one[:inside] >= k for k in range(lanes))),
                    runs.eq(less_one[inside:]),
                    run.eq(less_one[inside:]),
                    final.eq(less_one[inside:] == 0),
                ]
                with m.If(good):
                    m.next = "ROWS"
                with m.Else():
                    m.d.comb += self.header.eq(1)
                    m.next = "DISCARD"
            with m.State("ROWS"):
                m.d.comb += [self.o.valid.eq(self.i.valid), self.i.ready.eq(self.o.ready)]
                with m.If(self.i.valid & self.i.ready):
                    following = Signal.like(line)
                    m.d.comb += following.eq(line + stride)
                    with m.If(final):
                        m.d.sync += [line.eq(following), at.eq(following), run.eq(runs), final.eq(runs == 0)]
                    with m.Else():
                        m.d.sync += [at.eq(at + lanes), run.eq(run - 1), final.eq(run == 1)]
                    with m.If(self.i.payload.last):
                        m.d.comb += self.torn.eq(~final)
                        m.next = "HEADER"
            with m.State("DISCARD"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid & self.i.payload.last):
                    m.next = "HEADER"
        return m


class Closer(wiring.Component):
    """``o = i``, rows with their ends; a packet that a halt cuts off is ended by one row more, of zeros.

    No register: whoever takes from ``o`` has some.

    Parameters
    ----------
    shape : ShapeLike
        Of a row.

    Members
    -------
    i : In(stream.Signature(shape))
    last : In(1)
        Of the row at ``i``.
    halt : In(1)
        Two clocks at least, of which ``i`` offers nothing but in the first.
    o : Out(stream.Signature({"row": shape, "last": 1}))
    """

    def __init__(self, shape: ShapeLike) -> None:
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "last": In(1),
                "halt": In(1),
                "o": Out(stream.Signature(data.StructLayout({"row": shape, "last": 1}))),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        begun = Signal()
        closes = Signal()
        m.d.comb += [
            self.o.valid.eq(self.i.valid | closes),
            Value.cast(self.o.payload.row).eq(Mux(closes, 0, Value.cast(self.i.payload))),
            self.o.payload.last.eq(self.last | closes),
            self.i.ready.eq(self.o.ready & ~closes),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [begun.eq(~self.o.payload.last), closes.eq(0)]
        with m.Elif(self.halt & ~self.i.valid & begun):
            m.d.sync += closes.eq(1)
        return m
