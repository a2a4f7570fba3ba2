"""Matrices between an external memory and the packets of the array's core, row by row."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..bus.axi4_master import MemoryPort
from .build import UnitBuild
from .packets import HEADER, container

__all__ = ["Deliver", "Fetch", "memory_port", "transfer"]


def memory_port(build: UnitBuild, *, address: int = 32, longest: int = 16) -> MemoryPort:
    """The port whose beats are those of the array's packets of operands.

    Raises
    ------
    ValueError
        If containers of operands are three bytes, which make no beat of a memory.
    """
    width = build.lanes * container(build.array.operand)
    if width & (width - 1):
        raise ValueError(
            f"operand={build.array.operand} bits lie in {container(build.array.operand)}; give at most 16 for a memory"
        )
    # A row has as many beats as a memory has rows at most.
    return MemoryPort(width=width, address=address, longest=longest, beats=build.memory.bit_length())


def transfer(port: MemoryPort) -> data.StructLayout:
    """A matrix in the external memory, row i at ``address + pitch i``, in bytes, each beginning a beat.

    ``rows``: rows, but one; ``header``: where it lies in the array; of one that is delivered only ``columns`` counts.
    """
    return data.StructLayout({"address": port.address, "pitch": port.address, "rows": 16, "header": HEADER})


class _Rows(wiring.Component):
    """Runs of the rows of a matrix: ``address + pitch i``, i = 0 .. rows.

    Members
    -------
    start : In(1)
        Takes ``matrix``; only while ``idle``.
    matrix : In(transfer(port))
    beats : In(port.beats)
        Of a row; constant until it is idle again.
    run : Out(stream.Signature(port.run))
    idle : Out(1)
    """

    def __init__(self, port: MemoryPort) -> None:
        self._port = port
        super().__init__(
            {
                "start": In(1),
                "matrix": In(transfer(port)),
                "beats": In(port.beats),
                "run": Out(stream.Signature(port.run)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        address = Signal(self._port.address)
        pitch = Signal(self._port.address)
        left = Signal(16)
        m.d.comb += [
            self.idle.eq(~self.run.valid),
            self.run.payload.address.eq(address),
            self.run.payload.beats.eq(self.beats),
        ]
        with m.If(self.start):
            m.d.sync += [
                self.run.valid.eq(1),
                address.eq(self.matrix.address),
                pitch.eq(self.matrix.pitch),
                left.eq(self.matrix.rows),
            ]
        with m.Elif(self.run.valid & self.run.ready):
            m.d.sync += [self.run.valid.eq(left != 0), address.eq(address + pitch), left.eq(left - 1)]
        return m


class _Columns(wiring.Component):
    """Where in a matrix a beat is: ``ends`` a row, ``final`` of the last one, ``on`` its lanes that count.

    Members
    -------
    start : In(1)
    rows, columns : In
        Rows but one; operands of a row, at least one.
    step : In(1)
        A beat goes.
    beats : Out
        Of a row.
    ends, final : Out(1)
    on : Out(lanes)
    fits : Out(1)
        There is a column, and no more than a memory has operands.
    """

    def __init__(self, build: UnitBuild, beats: int) -> None:
        self._lanes, self._elements, self._beats = build.lanes, build.elements, beats
        super().__init__(
            {
                "start": In(1),
                "rows": In(16),
                "columns": In(24),
                "step": In(1),
                "beats": Out(beats),
                "ends": Out(1),
                "final": Out(1),
                "on": Out(build.lanes),
                "fits": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        inside = self._lanes.bit_length() - 1
        less_one = Signal(24)
        m.d.comb += [
            less_one.eq(self.columns - 1),
            self.fits.eq(self.columns.any() & (less_one < self._elements)),
        ]
        runs = Signal(self._beats)  # of a row, but one
        # that follow this one
        run = Signal(self._beats)
        row = Signal(16)
        tail = Signal(self._lanes)
        last_row = Signal()
        m.d.comb += [self.final.eq(self.ends & last_row), self.on.eq(Mux(self.ends, tail, ~0))]
        with m.If(self.start):
            m.d.sync += [
                runs.eq(less_one[inside:]),
                run.eq(less_one[inside:]),
                self.ends.eq(less_one[inside:] == 0),
                self.beats.eq(less_one[inside:] + 1),
                tail.eq(Cat(less_one[:inside] >= k for k in range(self._lanes))),
                row.eq(self.rows),
                last_row.eq(self.rows == 0),
            ]
        with m.Elif(self.step):
            with m.If(self.ends):
                m.d.sync += [run.eq(runs), self.ends.eq(runs == 0), row.eq(row - 1), last_row.eq(row == 1)]
            with m.Else():
                m.d.sync += [run.eq(run - 1), self.ends.eq(run == 1)]
        return m


class Fetch(wiring.Component):
    """A matrix out of the external memory as a packet for the array: its header, and the rows.

    Rows are asked for while the header leaves. A beat a clock, if the memory gives it, and three clocks between two
    matrices. One without columns, or with more than a memory of the array has operands, is refused.

    Parameters
    ----------
    build : UnitBuild
    port : MemoryPort
        As `memory_port` has it.

    Members
    -------
    i : In(stream.Signature(transfer(port)))
    run : Out(stream.Signature(port.run))
    rows : In(stream.Signature({"data": width, "last": 1}))
        As :class:`~pullback.rtl.bus.axi4_master.AXI4Reader` has both.
    o : Out(stream.Signature({"data": width, "last": 1}))
        For :class:`~pullback.rtl.systolic.packets.Loader`.
    idle : Out(1)
        The last packet has left.
    refused : Out(1)
        In this clock a matrix is.
    """

    def __init__(self, build: UnitBuild, port: MemoryPort) -> None:
        self._build, self._port = build, port
        beat = stream.Signature(data.StructLayout({"data": port.width, "last": 1}))
        super().__init__(
            {
                "i": In(stream.Signature(transfer(port))),
                "run": Out(stream.Signature(port.run)),
                "rows": In(beat),
                "o": Out(beat),
                "idle": Out(1),
                "refused": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        port, width = self._port, self._port.width
        m.submodules.asks = asks = _Rows(port)
        m.submodules.comes = comes = _Columns(self._build, port.beats)
        beats = -(-HEADER.size // width)
        header = Signal(beats * width)
        left = Signal(range(beats))
        held = Signal(transfer(port))
        wiring.connect(m, asks.run, wiring.flipped(self.run))
        m.d.comb += [
            asks.matrix.eq(held),
            asks.beats.eq(comes.beats),
            comes.rows.eq(self.i.payload.rows),
            comes.columns.eq(self.i.payload.header.columns),
            comes.step.eq(self.rows.valid & self.rows.ready),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.i.ready.eq(1), self.idle.eq(1), comes.start.eq(self.i.valid)]
                m.d.sync += [held.eq(self.i.payload), header.eq(self.i.payload.header), left.eq(beats - 1)]
                m.d.comb += self.refused.eq(self.i.valid & ~comes.fits)
                with m.If(self.i.valid & comes.fits):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += asks.start.eq(1)
                m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.data.eq(header[:width])]
                with m.If(self.o.ready):
                    m.d.sync += [header.eq(header >> width), left.eq(left - 1)]
                    with m.If(left == 0):
                        m.next = "ROWS"
            with m.State("ROWS"):
                m.d.comb += [
                    self.o.valid.eq(self.rows.valid),
                    self.o.payload.data.eq(self.rows.payload.data),
                    self.o.payload.last.eq(comes.final),
                    self.rows.ready.eq(self.o.ready),
                ]
                with m.If(self.o.valid & self.o.ready & comes.final):
                    m.next = "IDLE"
        return m


class Deliver(wiring.Component):
    """Rows that the array stores into the external memory, and no byte beside them.

    A packet may be delivered in parts, by one transfer behind the other. Where one ends before its transfer the rest is
    beats without a strobe, so that no burst stays open. In a halt rows are discarded, and a transfer ends so too.

    Parameters
    ----------
    build : UnitBuild
    port : MemoryPort
        As `memory_port` has it.

    Members
    -------
    i : In(stream.Signature(transfer(port)))
    rows : In(stream.Signature({"data": width, "last": 1}))
        As ``m_axis_stored`` has them.
    run : Out(stream.Signature(port.run))
    o : Out(stream.Signature({"data": width, "strobe": bytes}))
        As :class:`~pullback.rtl.bus.axi4_master.AXI4Writer` has both.
    halt : In(1)
    idle : Out(1)
        The last row has left.
    refused : Out(1)
        In this clock a matrix is, as by `Fetch`.
    short : Out(1)
        In this clock a packet ends before its transfer.
    """

    def __init__(self, build: UnitBuild, port: MemoryPort) -> None:
        self._build, self._port = build, port
        super().__init__(
            {
                "i": In(stream.Signature(transfer(port))),
                "rows": In(stream.Signature(data.StructLayout({"data": port.width, "last": 1}))),
                "run": Out(stream.Signature(port.run)),
                "o": Out(stream.Signature(data.StructLayout({"data": port.width, "strobe": port.bytes}))),
                "halt": In(1),
                "idle": Out(1),
                "refused": Out(1),
                "short": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        port, lanes = self._port, self._build.lanes
        m.submodules.asks = asks = _Rows(port)
        m.submodules.goes = goes = _Columns(self._build, port.beats)
        held = Signal(transfer(port))
        wiring.connect(m, asks.run, wiring.flipped(self.run))
        m.d.comb += [
            asks.matrix.eq(held),
            asks.beats.eq(goes.beats),
            goes.rows.eq(self.i.payload.rows),
            goes.columns.eq(self.i.payload.header.columns),
            goes.step.eq(self.o.valid & self.o.ready),
            self.o.payload.data.eq(self.rows.payload.data),
        ]
        strobe = Cat(goes.on[k].replicate(port.bytes // lanes) for k in range(lanes))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.i.ready.eq(1), self.idle.eq(1), goes.start.eq(self.i.valid)]
                m.d.sync += held.eq(self.i.payload)
                m.d.comb += [self.refused.eq(self.i.valid & ~goes.fits), self.rows.ready.eq(self.halt)]
                with m.If(self.i.valid & goes.fits):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += asks.start.eq(1)
                m.next = "ROWS"
            with m.State("ROWS"):
                m.d.comb += [
                    self.o.valid.eq(self.rows.valid),
                    self.o.payload.strobe.eq(strobe),
                    self.rows.ready.eq(self.o.ready),
                ]
                with m.If(self.o.valid & self.o.ready & goes.final):
                    m.next = "IDLE"
                with m.Elif(self.o.valid & self.o.ready & self.rows.payload.last):
                    m.d.comb += self.short.eq(~self.halt)
                    m.next = "REST"
                with m.Elif(self.halt & (~self.o.valid | self.o.ready)):
                    m.next = "REST"
            with m.State("REST"):
                m.d.comb += [self.o.valid.eq(1), self.rows.ready.eq(self.halt)]
                with m.If(self.o.ready & goes.final):
                    m.next = "IDLE"
        return m
