"""How words that are static while frames are inside reach the units: bit by bit, on two wires."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..stream.pixel import Flow

__all__ = ["StaticReceiver", "StaticSender"]


class StaticSender(wiring.Component):
    """Sends ``words``, as they are in a clock with ``start``: lowest bit first, one per clock from the next clock on.

    Side by side the words would be more wires than any unit has to the counters that compare with them, and a placer
    would put those counters beside the control plane.

    Members
    -------
    words : In(layout)
    start : In(1)
        Not while bits are being sent.
    o : Out(Flow(1))
    """

    def __init__(self, layout: data.StructLayout) -> None:
        super().__init__({"words": In(layout), "start": In(1), "o": Out(Flow(1))})

    def elaborate(self, platform) -> Module:
        m = Module()
        size = self.words.shape().size
        bits = Signal(size, reset_less=True)
        left = Signal(range(size + 1))
        m.d.comb += [self.o.valid.eq(left != 0), self.o.payload.eq(bits[0])]
        with m.If(self.start):
            m.d.sync += [bits.eq(self.words.as_value()), left.eq(size)]
        with m.Elif(self.o.valid):
            m.d.sync += [bits.eq(bits[1:]), left.eq(left - 1)]
        return m


class StaticReceiver(wiring.Component):
    """``words`` as a :class:`StaticSender` sent them, two clocks after their last bit; anything before that.

    Members
    -------
    i : In(Flow(1))
    o : Out(Flow(1))
        ``i`` a clock later, for the next receiver.
    words : Out(layout)
        Not reset: after a reset they are sent again.
    """

    def __init__(self, layout: data.StructLayout) -> None:
        super().__init__({"i": In(Flow(1)), "o": Out(Flow(1)), "words": Out(layout)})

    def elaborate(self, platform) -> Module:
        m = Module()
        bits = Signal(self.words.shape().size, reset_less=True)
        m.d.comb += self.words.eq(bits)
        m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        with m.If(self.o.valid):
            m.d.sync += bits.eq(Cat(bits[1:], self.o.payload))
        return m
