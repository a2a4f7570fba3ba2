"""AXI4 master: runs of a memory read as a stream, and a stream written to a memory.

Arm IHI 0022, AXI4: bursts of the kind INCR with beats as wide as the bus, one identifier, so that all answers come in
order; no burst crosses a boundary of 4 KiB (A3.4.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from pullback.rtl.stream.fifo import Fifo
from pullback.rtl.stream.skid import SkidBuffer

__all__ = ["AXI4Reader", "AXI4Writer", "Bursts", "MemoryPort", "axi4_read_members", "axi4_write_members"]

_INCR = 0b01
_BOUNDARY = 4096  # bytes
_BEATS = 256  # of a burst at most


@dataclass(frozen=True, kw_only=True)
class MemoryPort:
    """Widths of a memory port, and the longest burst on it.

    Parameters
    ----------
    width : int
        Bits of a beat: 8, 16 .. 1024.
    address : int
        Bits of an address, of a byte.
    longest : int
        Beats of a burst at most, a power of two up to 256; not more than 4 KiB.
    beats : int
        Bits of the number of beats of a run.

    Raises
    ------
    ValueError
        If one of them is something else.
    """

    width: int = 64
    address: int = 32
    longest: int = 16
    beats: int = 16

    def __post_init__(self) -> None:
        if self.width not in [8 << k for k in range(8)]:
            raise ValueError(f"width={self.width}; give 8, 16, 32, 64, 128, 256, 512 or 1024 bits")
        if not 12 <= self.address <= 64:
            raise ValueError(f"address={self.address}; give 12 to 64 bits")
        most = min(_BEATS, _BOUNDARY // self.bytes)
        if not 1 <= self.longest <= most or self.longest & (self.longest - 1):
            raise ValueError(
                f"longest={self.longest}; give a power of two up to {most} beats of {self.width} bits"
            )
        if not 1 <= self.beats <= 32:
            raise ValueError(f"beats={self.beats}; give 1 to 32 bits")

    @property
    def bytes(self) -> int:
        """Bytes of a beat."""
        return self.width // 8

    @property
    def size(self) -> int:
        """Bits of an address within a beat."""
        return self.bytes.bit_length() - 1

    @property
    def run(self) -> data.StructLayout:
        """``beats`` beats, at least 1, from ``address`` on, whose bits within a beat are ignored."""
        return data.StructLayout({"address": self.address, "beats": self.beats})

    @property
    def burst(self) -> data.StructLayout:
        """``length + 1`` beats from ``address`` on; ``final``: the last ones of their run."""
        return data.StructLayout({"address": self.address, "length": 8, "final": 1})


def axi4_read_members(port: MemoryPort, prefix: str = "m_axi_") -> dict[str, wiring.Member]:
    """The flat ports of the two channels of reads."""
    return {
        f"{prefix}{name}": member
        for name, member in {
            "arid": Out(1),
            "araddr": Out(port.address),
            "arlen": Out(8),
            "arsize": Out(3),
            "arburst": Out(2),
            "arvalid": Out(1),
            "arready": In(1),
            "rid": In(1),
            "rdata": In(port.width),
            "rresp": In(2),
            "rlast": In(1),
            "rvalid": In(1),
            "rready": Out(1),
        }.items()
    }


def axi4_write_members(port: MemoryPort, prefix: str = "m_axi_") -> dict[str, wiring.Member]:
    """The flat ports of the three channels of writes."""
    return {
        f"{prefix}{name}": member
        for name, member in {
            "awid": Out(1),
            "awaddr": Out(port.address),
            "awlen": Out(8),
            "awsize": Out(3),
            "awburst": Out(2),
            "awvalid": Out(1),
            "awready": In(1),
            "wdata": Out(port.width),
            "wstrb": Out(port.bytes),
            "wlast": Out(1),
            "wvalid": Out(1),
            "wready": In(1),
            "bid": In(1),
            "bresp": In(2),
            "bvalid": In(1),
            "bready": Out(1),
        }.items()
    }


class Bursts(wiring.Component):
    """Cuts runs into bursts: at every multiple of the longest one, so at every boundary of 4 KiB too.

    The bursts of a run follow each other without a gap and end where it ends. A burst is offered two clocks after the
    run was taken, or the burst before.

    Parameters
    ----------
    port : MemoryPort

    Members
    -------
    i : In(stream.Signature(port.run))
        **Contract of the user**: at least one beat, which does not lie beyond the end of the addresses.
    o : Out(stream.Signature(port.burst))
    idle : Out(1)
        No burst is to come.
    """

    def __init__(self, port: MemoryPort) -> None:
        self._port = port
        super().__init__(
            {"i": In(stream.Signature(port.run)), "o": Out(stream.Signature(port.burst)), "idle": Out(1)}
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        port = self._port
        at = Signal(port.address - port.size)  # in beats
        left = Signal(port.beats)
        number = Signal(range(port.longest + 1))
        final = Signal()
        room = Signal(range(port.longest + 1))
        m.d.comb += [
            room.eq(port.longest - at[: port.longest.bit_length() - 1]),
            self.o.payload.address.eq(Cat(Const(0, port.size), at)),
            self.o.payload.length.eq(number - 1),
            self.o.payload.final.eq(final),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.i.ready.eq(1), self.idle.eq(1)]
                m.d.sync += [at.eq(self.i.payload.address[port.size :]), left.eq(self.i.payload.beats)]
                with m.If(self.i.valid):
                    m.next = "CUT"
            with m.State("CUT"):
                m.d.sync += [number.eq(Mux(left > room, room, left)), final.eq(left <= room)]
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += [at.eq(at + number), left.eq(left - number)]
                    with m.If(final):
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "CUT"
        return m


class _Errors(wiring.Component):
    """The first answer that was an error, with the address of its burst, until it is cleared.

    Members
    -------
    seen : In(1)
        In this clock there is an answer, ``response``, to the burst at ``address``.
    clear : In(1)
    error, error_response, error_address : Out
    """

    def __init__(self, port: MemoryPort) -> None:
        super().__init__(
            {
                "seen": In(1),
                "response": In(2),
                "address": In(port.address),
                "clear": In(1),
                "error": Out(1),
                "error_response": Out(2),
                "error_address": Out(port.address),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        # SLVERR and DECERR; EXOKAY is no error, and nobody asks for it.
        with m.If(self.seen & self.response[1] & (~self.error | self.clear)):
            m.d.sync += [
                self.error.eq(1),
                self.error_response.eq(self.response),
                self.error_address.eq(self.address),
            ]
        with m.Elif(self.clear):
            m.d.sync += self.error.eq(0)
        return m


def _error_members(port: MemoryPort) -> dict[str, wiring.Member]:
    return {"clear": In(1), "error": Out(1), "error_response": Out(2), "error_address": Out(port.address)}


class AXI4Reader(wiring.Component):
    """``o = memory[address], memory[address + bytes], ..`` for every run, in order.

    Bursts are asked for ahead, ``outstanding`` of them at most, whether or not what they bring is taken. An answer that
    is an error is passed on as data like any other, so that every run comes to its end, and is noted: the first one
    since ``clear``, with its response and the address of its burst.

    Throughput one beat a clock, if the memory gives it and bursts have two beats or more.

    Parameters
    ----------
    port : MemoryPort
    outstanding : int
        Bursts, 1 to 64.

    Members
    -------
    ``m_axi_*`` : see :func:`axi4_read_members`
    run : In(stream.Signature(port.run))
    o : Out(stream.Signature({"data": width, "last": 1}))
        ``last``: of a run.
    idle : Out(1)
        All that was asked for has left.
    clear : In(1)
    error, error_response, error_address : Out

    Raises
    ------
    ValueError
        If the number of outstanding bursts is out of its range.
    """

    def __init__(self, port: MemoryPort, *, outstanding: int = 4) -> None:
        _check_outstanding(outstanding)
        self._port, self._outstanding = port, outstanding
        super().__init__(
            {
                **axi4_read_members(port),
                "run": In(stream.Signature(port.run)),
                "o": Out(stream.Signature(data.StructLayout({"data": port.width, "last": 1}))),
                "idle": Out(1),
                **_error_members(port),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        port = self._port
        m.submodules.bursts = bursts = Bursts(port)
        m.submodules.asked = asked = Fifo(
            data.StructLayout({"address": port.address, "final": 1}), self._outstanding
        )
        m.submodules.errors = errors = _Errors(port)
        wiring.connect(m, wiring.flipped(self.run), bursts.i)

        m.d.comb += [
            asked.i.valid.eq(_ask(m, self, "ar", bursts, asked.i.ready)),
            asked.i.payload.address.eq(bursts.o.payload.address),
            asked.i.payload.final.eq(bursts.o.payload.final),
        ]

        m.submodules.edge = edge = SkidBuffer(
            data.StructLayout({"data": port.width, "response": 2, "last": 1})
        )
        m.d.comb += [
            edge.i.valid.eq(self.m_axi_rvalid),
            edge.i.payload.data.eq(self.m_axi_rdata),
            edge.i.payload.response.eq(self.m_axi_rresp),
            edge.i.payload.last.eq(self.m_axi_rlast),
            self.m_axi_rready.eq(edge.i.ready),
            self.o.valid.eq(edge.o.valid & asked.o.valid),
            self.o.payload.data.eq(edge.o.payload.data),
            self.o.payload.last.eq(edge.o.payload.last & asked.o.payload.final),
            edge.o.ready.eq(self.o.ready & asked.o.valid),
            asked.o.ready.eq(self.o.ready & edge.o.valid & edge.o.payload.last),
            self.idle.eq(bursts.idle & (asked.level == 0)),
        ]
        _note(m, self, errors, self.o.valid & self.o.ready, edge.o.payload.response, asked.o.payload.address)
        return m


class AXI4Writer(wiring.Component):
    """``memory[address], memory[address + bytes], .. = i`` for every run, in order, where the strobes say.

    The address and the data of a burst do not wait for one another. Data that do not come keep a burst open. An answer
    that is an error is noted: the first one since ``clear``, with its response and the address of its burst.

    Throughput one beat a clock, if the memory takes it and bursts have two beats or more.

    Parameters
    ----------
    port : MemoryPort
    outstanding : int
        Bursts, 1 to 64.

    Members
    -------
    ``m_axi_*`` : see :func:`axi4_write_members`
    run : In(stream.Signature(port.run))
    i : In(stream.Signature({"data": width, "strobe": bytes}))
    idle : Out(1)
        All that was asked for stands in memory.
    clear : In(1)
    error, error_response, error_address : Out

    Raises
    ------
    ValueError
        If the number of outstanding bursts is out of its range.
    """

    def __init__(self, port: MemoryPort, *, outstanding: int = 4) -> None:
        _check_outstanding(outstanding)
        self._port, self._outstanding = port, outstanding
        super().__init__(
            {
                **axi4_write_members(port),
                "run": In(stream.Signature(port.run)),
                "i": In(stream.Signature(data.StructLayout({"data": port.width, "strobe": port.bytes}))),
                "idle": Out(1),
                **_error_members(port),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        port = self._port
        m.submodules.bursts = bursts = Bursts(port)
        # A burst is in both from the clock on in which its address is offered.
        m.submodules.lengths = lengths = Fifo(8, self._outstanding)
        m.submodules.asked = asked = Fifo(port.address, self._outstanding)
        m.submodules.errors = errors = _Errors(port)
        wiring.connect(m, wiring.flipped(self.run), bursts.i)

        takes = _ask(m, self, "aw", bursts, lengths.i.ready & asked.i.ready)
        m.d.comb += [
            lengths.i.valid.eq(takes),
            lengths.i.payload.eq(bursts.o.payload.length),
            asked.i.valid.eq(takes),
            asked.i.payload.eq(bursts.o.payload.address),
        ]

        m.submodules.edge = edge = SkidBuffer(
            data.StructLayout({"data": port.width, "strobe": port.bytes, "last": 1})
        )
        sent = Signal(8)  # beats of the burst
        last = Signal()
        moves = edge.i.valid & edge.i.ready
        m.d.comb += [
            last.eq(sent == lengths.o.payload),
            edge.i.valid.eq(self.i.valid & lengths.o.valid),
            edge.i.payload.data.eq(self.i.payload.data),
            edge.i.payload.strobe.eq(self.i.payload.strobe),
            edge.i.payload.last.eq(last),
            self.i.ready.eq(edge.i.ready & lengths.o.valid),
            lengths.o.ready.eq(self.i.valid & edge.i.ready & last),
            self.m_axi_wvalid.eq(edge.o.valid),
            self.m_axi_wdata.eq(edge.o.payload.data),
            self.m_axi_wstrb.eq(edge.o.payload.strobe),
            self.m_axi_wlast.eq(edge.o.payload.last),
            edge.o.ready.eq(self.m_axi_wready),
        ]
        with m.If(moves):
            m.d.sync += sent.eq(Mux(last, 0, sent + 1))

        m.d.comb += [
            self.m_axi_bready.eq(asked.o.valid),
            asked.o.ready.eq(self.m_axi_bvalid),
            self.idle.eq(bursts.idle & (asked.level == 0)),
        ]
        _note(m, self, errors, asked.o.valid & self.m_axi_bvalid, self.m_axi_bresp, asked.o.payload)
        return m


def _check_outstanding(outstanding: int) -> None:
    if not 1 <= outstanding <= 64:
        raise ValueError(f"outstanding={outstanding}; give 1 to 64 bursts")


def _ask(m: Module, master: Any, channel: str, bursts: Bursts, room: Value) -> Value:
    """Offers bursts on an address channel, as many as there is room for what is kept of them. Whether one is taken."""

    def port(name: str) -> Any:
        return getattr(master, f"m_axi_{channel}{name}")

    free = ~port("valid") | port("ready")
    takes = Signal(name=f"{channel}_takes")
    m.d.comb += [
        takes.eq(free & bursts.o.valid & room),
        bursts.o.ready.eq(free & room),
        port("id").eq(0),
        port("size").eq(master._port.size),
        port("burst").eq(_INCR),
    ]
    with m.If(free):
        m.d.sync += [
            port("valid").eq(takes),
            port("addr").eq(bursts.o.payload.address),
            port("len").eq(bursts.o.payload.length),
        ]
    return takes


def _note(m: Module, master: Any, errors: _Errors, seen: Value, response: Value, address: Value) -> None:
    m.d.comb += [
        errors.seen.eq(seen),
        errors.response.eq(response),
        errors.address.eq(address),
        errors.clear.eq(master.clear),
        master.error.eq(errors.error),
        master.error_response.eq(errors.error_response),
        master.error_address.eq(errors.error_address),
    ]
