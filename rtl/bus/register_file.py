"""Registers behind AXI4-Lite, from their declarations."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .axi4lite import AXI4Lite, axi4lite_members
from .registers import Register
from .through import through

__all__ = ["RegisterFile"]


class RegisterFile(wiring.Component):
    """Reads give ``values``, writes are told with their ``data``; and a window of words that are only written.

    What a write does is its user's affair, who keeps what is to be kept. Writing a register that can only be read,
    reading the window, and any access to an unmapped address is answered SLVERR, reads as 0 and does nothing. A
    register that can only be written reads as 0.

    Latency without stalls, from the clock edge that takes AR to the one that takes R: 6 clocks. Between two writes at
    ``writes`` or the window lie three clocks at least.

    Parameters
    ----------
    registers : sequence of Register
        By rising address from 0 on, without gaps.
    window : int
        Byte address of the window, a multiple of its size rounded up to a power of two.
    words : int
        Of the window; 0: there is none.

    Members
    -------
    ``s_axil_*`` : see :func:`pullback.rtl.bus.axi4lite.axi4lite_members`
    values : In(StructLayout({name: 32 for those that can be read}))
    writes : Out(StructLayout({name: 1 for those that can be written}))
    write, row : Out(1), Out(range(words))
        Of the window.
    data : Out(32)
        Of what is written in this clock.

    Raises
    ------
    ValueError
        If the registers have a gap, or the window does not lie where it must.
    """

    def __init__(self, registers: Sequence[Register], *, window: int = 0x8000, words: int = 0) -> None:
        self._registers = tuple(registers)
        for k, register in enumerate(self._registers):
            if register.address != 4 * k:
                raise ValueError(
                    f"{register.name} is at 0x{register.address:04x}; register {k} belongs to 0x{4 * k:04x}"
                )
        size = 4 << max(words - 1, 0).bit_length()
        if words and (window % size or window + size > 0x10000 or window < 4 * len(self._registers)):
            raise ValueError(
                f"a window of {words} words at 0x{window:04x}; give a multiple of 0x{size:x} behind the registers"
            )
        self._window, self._words = window, words
        super().__init__(
            {
                **axi4lite_members(),
                "values": In(data.StructLayout({r.name: 32 for r in registers if r.access != "w"})),
                "writes": Out(data.StructLayout({r.name: 1 for r in registers if r.access != "r"})),
                "write": Out(1),
                "row": Out(range(max(words, 2))),
                "data": Out(32),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.axi4lite = axi = AXI4Lite()
        through(m, self, axi, axi4lite_members())
        request = axi.request

        # The read multiplexer works in every clock; only its register is used.
        selected = Signal(range(len(self._registers)))
        value = Signal(32)
        m.d.sync += selected.eq(request.address)
        with m.Switch(selected):
            for k, register in enumerate(self._registers):
                with m.Case(k):
                    m.d.sync += value.eq(self.values[register.name] if register.access != "w" else 0)
            with m.Default():
                m.d.sync += value.eq(0)

        # Decode, registered.
        base = self._window // 4
        in_registers = Signal()
        in_window = Signal()
        m.d.sync += [
            in_registers.eq(request.address < len(self._registers)),
            in_window.eq((request.address >= base) & (request.address < base + self._words)),
        ]
        # The base is a multiple of the size, so that the row needs no subtraction.
        m.d.comb += [self.row.eq(request.address), self.data.eq(request.wdata)]

        answered = Signal()
        error = Signal()
        rdata = Signal(32)
        m.d.comb += [request.done.eq(answered), request.error.eq(error), request.rdata.eq(rdata)]
        with m.FSM():
            with m.State("IDLE"), m.If(request.valid):
                m.next = "SELECT"
            with m.State("SELECT"):
                m.next = "ACT"
            with m.State("ACT"):
                m.d.sync += [answered.eq(1), rdata.eq(0)]
                m.next = "DONE"
                with m.If(in_registers & ~request.write):
                    m.d.sync += rdata.eq(value)
                with m.Elif(in_registers), m.Switch(selected):
                    for k, register in enumerate(self._registers):
                        if register.access != "r":
                            with m.Case(k):
                                m.d.comb += self.writes[register.name].eq(1)
                    with m.Default():
                        m.d.sync += error.eq(1)
                with m.Elif(in_window & request.write):
                    m.d.comb += self.write.eq(1)
                with m.Else():
                    m.d.sync += error.eq(1)
            with m.State("DONE"):
                m.d.sync += [answered.eq(0), error.eq(0)]
                m.next = "IDLE"
        return m
