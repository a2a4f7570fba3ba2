"""AXI4-Lite slave front end: the bus protocol on one side, one request at a time on the other."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["OKAY", "REQUEST", "SLVERR", "AXI4Lite", "axi4lite_members"]

OKAY = 0b00
SLVERR = 0b10

REQUEST = wiring.Signature(
    {
        "valid": Out(1),
        "write": Out(1),
        "address": Out(14),
        "wdata": Out(32),
        "done": In(1),
        "error": In(1),
        "rdata": In(32),
    }
)
"""One access at a time. ``valid`` rises with ``write``, ``address`` (in words) and ``wdata``; all four keep
until the clock in which ``done`` is 1, and ``rdata`` and ``error`` count in that clock only. ``valid`` is 0
in the clock after."""


def axi4lite_members(prefix: str = "s_axil_") -> dict[str, wiring.Member]:
    """The flat ports of a slave with 16-bit byte addresses and 32-bit data.

    ``awprot`` and ``arprot`` are left out: a slave that does not use them may leave them unconnected.
    """
    return {
        f"{prefix}{name}": member
        for name, member in {
            "awaddr": In(16),
            "awvalid": In(1),
            "awready": Out(1),
            "wdata": In(32),
            "wstrb": In(4),
            "wvalid": In(1),
            "wready": Out(1),
            "bresp": Out(2),
            "bvalid": Out(1),
            "bready": In(1),
            "araddr": In(16),
            "arvalid": In(1),
            "arready": Out(1),
            "rdata": Out(32),
            "rresp": Out(2),
            "rvalid": Out(1),
            "rready": In(1),
        }.items()
    }


class AXI4Lite(wiring.Component):
    """Takes AXI4-Lite reads and writes and makes them requests, one outstanding.

    Address and data of a write may come in either order and any time apart. A read and a write that wait
    together take turns. Every output is a register, 0 in reset. Two low address bits are ignored: an access
    is to the word that contains the byte. A write whose strobes are not all set is answered SLVERR and does
    not reach ``request``.

    Latency: ``request.valid`` two clocks after the later of AW and W (or after AR); the response one clock
    after ``done``. Throughput: one access in four clocks plus those that ``done`` takes.

    Members
    -------
    ``s_axil_*`` : see :func:`axi4lite_members`
    ``request`` : ``Out(REQUEST)``
    """

    def __init__(self) -> None:
        super().__init__({**axi4lite_members(), "request": Out(REQUEST)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        request = self.request

        # A ready that is low means that the channel's slot is full: the flop is both.
        write_address = Signal(14)
        write_data = Signal(32)
        whole = Signal()
        read_address = Signal(14)
        with m.If(self.s_axil_awvalid & self.s_axil_awready):
            m.d.sync += [write_address.eq(self.s_axil_awaddr[2:]), self.s_axil_awready.eq(0)]
        with m.If(self.s_axil_wvalid & self.s_axil_wready):
            m.d.sync += [
                write_data.eq(self.s_axil_wdata),
                whole.eq(self.s_axil_wstrb.all()),
                self.s_axil_wready.eq(0),
            ]
        with m.If(self.s_axil_arvalid & self.s_axil_arready):
            m.d.sync += [read_address.eq(self.s_axil_araddr[2:]), self.s_axil_arready.eq(0)]
        with m.If(self.s_axil_bready):
            m.d.sync += self.s_axil_bvalid.eq(0)
        with m.If(self.s_axil_rready):
            m.d.sync += self.s_axil_rvalid.eq(0)

        # A response still on its way keeps its own direction waiting, not the other one. The first clock after
        # an access finds its slots empty, so that the other direction, if it waits, is next: they take turns.
        write_waits = ~self.s_axil_awready & ~self.s_axil_wready & ~self.s_axil_bvalid
        read_waits = ~self.s_axil_arready & ~self.s_axil_rvalid

        with m.FSM():
            with m.State("RESET"):
                m.d.sync += Cat(self.s_axil_awready, self.s_axil_wready, self.s_axil_arready).eq(0b111)
                m.next = "IDLE"
            with m.State("IDLE"):
                m.d.sync += [
                    request.write.eq(write_waits),
                    request.address.eq(Mux(write_waits, write_address, read_address)),
                    request.wdata.eq(write_data),
                ]
                with m.If(write_waits):
                    with m.If(whole):
                        m.d.sync += request.valid.eq(1)
                        m.next = "BUSY"
                    with m.Else():
                        m.d.sync += [
                            Cat(self.s_axil_awready, self.s_axil_wready, self.s_axil_bvalid).eq(0b111),
                            self.s_axil_bresp.eq(SLVERR),
                        ]
                with m.Elif(read_waits):
                    m.d.sync += request.valid.eq(1)
                    m.next = "BUSY"
            with m.State("BUSY"), m.If(request.done):
                response = Mux(request.error, SLVERR, OKAY)
                m.d.sync += request.valid.eq(0)
                with m.If(request.write):
                    m.d.sync += [
                        Cat(self.s_axil_awready, self.s_axil_wready, self.s_axil_bvalid).eq(0b111),
                        self.s_axil_bresp.eq(response),
                    ]
                with m.Else():
                    m.d.sync += [
                        Cat(self.s_axil_arready, self.s_axil_rvalid).eq(0b11),
                        self.s_axil_rresp.eq(response),
                        self.s_axil_rdata.eq(request.rdata),
                    ]
                m.next = "IDLE"
        return m
