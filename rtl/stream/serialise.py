"""Words that are there at once, one after another."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .pixel import Flow
from .skid import SkidBuffer

__all__ = ["Serialise"]


class Serialise(wiring.Component):
    """``o = i[0], i[1], ...``: the words of ``i``, sign-extended, in their order.

    The words stand in a shift chain, so that no multiplexer spans them. Word k passes through the places below it:
    each place is as wide as the widest word at or above it.

    Latency: 2 clocks from ``i`` to the first word at ``o``; one word per clock.

    Parameters
    ----------
    widths : mapping of str to int
        Bits of each word, 1 to 64.

    Members
    -------
    i : In(Flow(StructLayout({name: signed(width), ...})))
        **Contract of the user**: none while ``busy``.
    o : Out(stream.Signature(signed(64)))
    busy : Out(1)
        Registered: words stand in the chain.
    ends : Out(1)
        The last word leaves the chain in this clock.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        self._widths = dict(widths)
        words = data.StructLayout({name: signed(width) for name, width in widths.items()})
        super().__init__(
            {
                "i": In(Flow(words)),
                "o": Out(stream.Signature(signed(64))),
                "busy": Out(1),
                "ends": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.skid = skid = SkidBuffer(signed(64))
        wiring.connect(m, skid.o, wiring.flipped(self.o))
        chain: list[Signal] = []
        for name, width in reversed(self._widths.items()):
            wide = max(width, len(chain[0]) if chain else 0)
            chain.insert(0, Signal(signed(wide), name=f"{name}_leaving", reset_less=True))
        left = Signal(range(len(chain)))  # words behind the one at the end
        load, shift = self.i.valid, self.busy & skid.i.ready
        m.d.comb += [
            skid.i.valid.eq(self.busy),
            skid.i.payload.eq(chain[0]),
            self.ends.eq(shift & (left == 0)),
        ]
        for place, name, after in zip(chain, self._widths, [*chain[1:], chain[-1]], strict=True):
            with m.If(load):
                m.d.sync += place.eq(self.i.payload[name])
            with m.Elif(shift):
                m.d.sync += place.eq(after)
        with m.If(load):
            m.d.sync += [self.busy.eq(1), left.eq(len(chain) - 1)]
        with m.Elif(shift):
            m.d.sync += [self.busy.eq(left != 0), left.eq(left - 1)]
        return m
