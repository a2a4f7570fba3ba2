"""Words that are there at once, one after another."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .enable import enables
from .fifo import Fifo

__all__ = ["Serialise"]


class Serialise(wiring.Component):
    """``o = words[0], words[1], ...``, sign-extended, in their order.

    The words enter a shift chain, so that no multiplexer spans them, and run from there into a FIFO that has room for
    all of them, so that no stall reaches the chain. Word k passes through the places below it: each place is as wide
    as the widest word at or above it.

    Latency: 4 clocks from ``start`` to the first word at ``o``; then one word per clock.

    Parameters
    ----------
    widths : mapping of str to int
        Bits of each word, 1 to 64.

    Members
    -------
    start : In(1)
        The words are taken in the next clock. **Contract of the user**: not while ``busy``.
    words : In(StructLayout({name: signed(width), ...}))
    o : Out(stream.Signature(signed(64)))
    busy : Out(1)
        Registered: from the clock after ``start`` until the last word is taken at ``o``.
    ends : Out(1)
        The last word is taken at ``o`` in this clock.
    """

    latency = 4

    def __init__(self, widths: Mapping[str, int]) -> None:
        self._widths = dict(widths)
        super().__init__(
            {
                "start": In(1),
                "words": In(data.StructLayout({name: signed(width) for name, width in widths.items()})),
                "o": Out(stream.Signature(signed(64))),
                "busy": Out(1),
                "ends": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        count = len(self._widths)
        chain: list[Signal] = []
        for name, width in reversed(self._widths.items()):
            wide = max(width, len(chain[0]) if chain else 0)
            chain.insert(0, Signal(signed(wide), name=f"{name}_leaving", reset_less=True))
        loads = enables(m, "load", self.start, count)
        for load, place, name, after in zip(loads, chain, self._widths, [*chain[1:], 0], strict=True):
            m.d.sync += place.eq(Mux(load, self.words[name], after))

        loaded = Signal()
        entering = Signal()
        behind = Signal(range(count))  # words in the chain behind the one that enters the FIFO
        m.d.sync += loaded.eq(self.start)
        with m.If(loaded):
            m.d.sync += [entering.eq(1), behind.eq(count - 1)]
        with m.Elif(entering):
            m.d.sync += [entering.eq(behind != 0), behind.eq(behind - 1)]
        m.submodules.fifo = fifo = Fifo(signed(64), count)
        m.d.comb += [fifo.i.valid.eq(entering), fifo.i.payload.eq(chain[0])]
        wiring.connect(m, fifo.o, wiring.flipped(self.o))

        left = Signal(range(count))  # words that follow the one that is next at o
        taken = self.o.valid & self.o.ready
        m.d.comb += self.ends.eq(taken & (left == 0))
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), left.eq(count - 1)]
        with m.Elif(taken):
            m.d.sync += [self.busy.eq(left != 0), left.eq(left - 1)]
        return m
